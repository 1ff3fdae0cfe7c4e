"""Score files of rows with a version."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from registry_tools.batch import scoring_job
from registry_tools.batch.job import ScoringRequest, ScoringSummary
from registry_tools.files.csv_rows import CsvFormat
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.refs import parse_ref
from registry_tools.spark import check_installed


def score(
    ref: str,
    *,
    input: str | Path,
    output: str | Path,
    rejects: str | Path | None = None,
    proba: bool = False,
    keep: Sequence[str] | None = None,
    prefix: str = "",
    separator: str = ",",
    encoding: str = "utf-8",
    workers: int | None = None,
    spark_master: str | None = None,
    tracking_uri: str | None = None,
    trust: Sequence[str] = (),
    allow_code: bool = False,
    public_key: str | None = None,
    begin: Callable[[Any], Callable[[int, int], None]] = lambda files: lambda done, rows: None,
) -> ScoringSummary:
    """Predict the rows of files and write them with their predictions.

    The output is complete or absent. The call starts processes, which import the main module of
    your program: guard a script with `if __name__ == "__main__"`.

    Parameters
    ----------
    ref
        `iris@production`, `iris/3` or `iris/Production`: the version that it means now predicts
        all rows.
    input
        A CSV or Parquet file, a folder of them, or a URL.
    output
        The `.parquet` or `.csv` file to write; text with `/` at its end is a folder of Parquet files.
    rejects
        A file for the rows that cannot be scored, with the reason. None fails at the first one.
    proba
        Add the probability of each class.
    keep
        The columns of the input to write; None writes all.
    prefix
        The beginning of the names of the added columns.
    separator, encoding
        Those of a CSV: one ASCII character, and the name of a codec.
    workers
        The number of processes; None takes all cores.
    spark_master
        The master of Spark, such as `local[*]`, to score on its executors; `output` and `rejects` are
        then addresses of folders.
    tracking_uri
        The registry; None takes MLflow's own.
    trust, allow_code, public_key
        The types and formats that the version may contain, and the key that must have signed it;
        as in `load_model`.
    begin
        Called with the files before the first row is read. It returns a function that is called
        with the amount that is done, out of `files.total`, and the number of rows. Not on Spark.

    Returns
    -------
    ScoringSummary
        The version, the numbers of rows, rejects and predictions by class, and the recorded run.

    Raises
    ------
    InputError
        If the files do not fit the signature or each other, a row cannot be scored and there is
        no file of rejects, or the output cannot be written.
    NotFound, VerificationError, InvalidReference, RegistryUnavailable, AccessDenied
        As `load_model`.

    Examples
    --------
    >>> from registry_tools import score
    >>> score("iris@production", input="rows.csv", output="scored.parquet").counts  # doctest: +SKIP
    {'setosa': 50, 'versicolor': 50, 'virginica': 50}
    """
    request = ScoringRequest(
        ref=parse_ref(ref),
        trust_policy=TrustPolicy.from_environment(trust, allow_code, public_key),
        input=str(input),
        output=_address(output, spark_master),
        folder=str(output).endswith("/"),
        rejects=_address(rejects, spark_master) if rejects is not None else None,
        proba=proba,
        keep=tuple(keep) if keep is not None else None,
        prefix=prefix,
        csv=CsvFormat(separator, encoding),
        workers=workers,
        master=spark_master,
    )
    if spark_master is None:
        return scoring_job.score(request, tracking_uri, begin)
    check_installed()
    from registry_tools.batch import spark_job

    return spark_job.score(request, tracking_uri)


def _address(path: str | Path, spark_master: str | None) -> str:
    """Return a path without its last slash, or an address for Spark as it is."""
    return str(path) if spark_master is not None else str(Path(path))
