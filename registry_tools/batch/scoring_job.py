"""One scoring job: files in, one file out, written atomically, recorded as a run."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from registry_tools.batch import scoring_plan
from registry_tools.batch.engines.process_pool import ProcessPool, available_cores
from registry_tools.batch.readers.input_files import InputFiles, open_files, without_secrets
from registry_tools.batch.readers.read_rows import BATCH_ROWS, BLOCK_BYTES
from registry_tools.batch.row_groups import NeedsRowStream, copyable_footers, score_row_groups
from registry_tools.batch.row_stream import RowStream
from registry_tools.batch.run_log import ScoringRun
from registry_tools.batch.scoring_plan import Progress, ScoringPlan, ScoringRequest
from registry_tools.batch.writers import table_writers
from registry_tools.data.arrow_coercion import check_schema
from registry_tools.data.schema import Column, quoted_names
from registry_tools.errors import InputError, RegistryToolsError, UnsupportedOperation
from registry_tools.inference.artifact_fetcher import ArtifactFetcher
from registry_tools.inference.model_artifact import ModelArtifact
from registry_tools.mlflow_store.client import connect
from registry_tools.models.formats import describe
from registry_tools.models.trust_policy import TrustPolicy


@dataclass(frozen=True)
class ScoringSummary:
    """The result of a scoring job."""

    name: str
    version: int
    stage: str | None
    input: str
    output: str
    rows: int  # that were scored
    rejected: int
    rejects: str | None
    seconds: float  # from the first row read to the output in its place
    rows_per_second: float
    counts: Mapping[str, int]  # rows by class; empty where numbers are predicted
    experiment: str
    run_id: str | None

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        return asdict(self)


def score(
    request: ScoringRequest,
    policy: TrustPolicy,
    tracking_uri: str | None = None,
    begin: Callable[[InputFiles], Progress] = lambda files: lambda done, rows: None,
) -> ScoringSummary:
    """Score files with the version that a reference means now.

    Parameters
    ----------
    request, policy, tracking_uri
        The request, what the model may contain, and where the registry is.
    begin
        Receives the files before the first row is read; returns what receives the progress.

    Raises
    ------
    InputError
        If the files do not fit the signature or each other, a row cannot be scored and there is
        no file of rejects, or the output cannot be written. Nothing stands under its name then.
    RegistryToolsError
        As `load_model`.
    """
    files = open_files(request.input)
    _check_outputs(request, files)
    with contextlib.ExitStack() as stack:
        engine = ProcessPool(_worker_count(request, files))
        stack.callback(engine.close)
        client = connect(tracking_uri)
        fetcher = ArtifactFetcher(request.ref, policy, tracking_uri, None)
        stack.callback(fetcher.close)
        version = fetcher.resolve()  # the one that predicts, wherever the stage moves meanwhile
        artifact = fetcher.fetch(version)
        columns = signature_columns(artifact)
        for where in files.names[:1]:
            check_schema(files.schema, columns, where, files.is_text)
        _refuse_existing_columns(files, ["prediction", "prediction_name", "model_version"])
        record = ScoringRun(client, version.name, _run_tags(request, artifact))
        with end_run_on_error(record):
            added = engine.load(artifact, policy, request.proba, files.is_text)
            _refuse_existing_columns(files, added)
            plan = ScoringPlan(request, files, columns, artifact, engine, added)
            return _score_plan(plan, record, begin(files))


def _score_plan(plan: ScoringPlan, record: ScoringRun, progress: Progress) -> ScoringSummary:
    request, artifact = plan.request, plan.artifact
    began = time.perf_counter()
    total = _score_rows(plan, progress)
    seconds = time.perf_counter() - began
    metrics = {
        "rows": total.rows,
        "rejected": total.rejected,
        "seconds": seconds,
        "rows_per_second": (total.rows + total.rejected) / max(seconds, 1e-9),
    }
    record.finish(metrics, total.counts)
    return ScoringSummary(
        name=artifact.name,
        version=artifact.version,
        stage=request.ref.stage,
        input=without_secrets(request.input),
        output=str(request.output),
        rows=total.rows,
        rejected=total.rejected,
        rejects=str(request.rejects) if request.rejects else None,
        seconds=seconds,
        rows_per_second=metrics["rows_per_second"],
        counts=dict(sorted(total.counts.items())),
        experiment=record.experiment,
        run_id=record.run_id,
    )


def _score_rows(plan: ScoringPlan, progress: Progress) -> scoring_plan.RowCounts:
    """Copy the row groups if possible; else, or where rows are to be rejected, stream all rows."""
    footers = copyable_footers(plan)
    if footers is not None:
        with contextlib.suppress(NeedsRowStream):
            return score_row_groups(plan, footers, progress)
    return RowStream(plan).run(progress)


def _worker_count(request: ScoringRequest, files: InputFiles) -> int:
    """Return how many processes are worth starting."""
    wanted = request.workers or available_cores()
    batches = files.total // (BLOCK_BYTES if files.is_text else BATCH_ROWS) + 1
    return max(1, min(wanted, batches))


@contextlib.contextmanager
def end_run_on_error(record: ScoringRun) -> Iterator[None]:
    """End the run as failed or killed where the body fails."""
    try:
        yield
    except RegistryToolsError as error:
        record.fail("FAILED", str(error))
        raise
    except BaseException as error:
        killed = isinstance(error, (KeyboardInterrupt, SystemExit))
        record.fail("KILLED" if killed else "FAILED", "interrupted" if killed else str(error))
        raise


def signature_columns(artifact: ModelArtifact) -> tuple[Column, ...]:
    """Return the columns that a version takes; refuse one that does not name and type them."""
    columns = describe(artifact.model).signature
    if columns is None:
        raise UnsupportedOperation(
            f"{artifact} does not name and type its columns, so that files cannot be compared with "
            "its signature: register it with one, or use predict"
        )
    return columns


def _check_outputs(request: ScoringRequest, files: InputFiles) -> None:
    """Refuse an output that is an input, or would be one the next time."""
    targets = [request.output, *([request.rejects] if request.rejects else [])]
    for target in targets:
        table_writers.check_target(target)
        table_writers.check_columns(target, files.schema, files.names[0])
        if "://" in request.input:
            continue
        given = Path(request.input).resolve()
        if target.resolve() in {given, *(Path(one.path).resolve() for one in files.identities)}:
            raise InputError(f"{target}: it is the input as well: name another output")
        if given.is_dir() and given in target.resolve().parents:
            raise InputError(
                f"{target}: it lies in the folder that is read, and would be input the next time: "
                "name another output"
            )
    if len({target.resolve() for target in targets}) < len(targets):
        raise InputError(f"{request.output}: output and rejects are the same file")
    if request.rejects is not None:
        _refuse_existing_columns(files, [scoring_plan.REASON])


def _refuse_existing_columns(files: InputFiles, added: list[str]) -> None:
    taken = [name for name in added if name in files.schema.names]
    if taken:
        raise InputError(
            f"{files.names[0]}: it already has the column{'s' * (len(taken) > 1)} "
            f"{quoted_names(taken)}, which the output adds: rename or drop "
            f"{'them' if len(taken) > 1 else 'it'}"
        )


def _run_tags(request: ScoringRequest, artifact: ModelArtifact) -> dict[str, str]:
    return {
        "model": artifact.name,
        "version": str(artifact.version),
        **({"stage": artifact.stage} if artifact.stage else {}),
        **({"digest": artifact.digest} if artifact.digest else {}),
        "input": without_secrets(request.input),
        "output": str(request.output),
        "engine": "processes",
        "mlflow.runName": f"{artifact} on {Path(without_secrets(request.input)).name}",
    }
