"""One batch scoring: files in, one file out, whole or not at all, recorded as a run."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from registry_tools.batch import row_groups
from registry_tools.batch.engines.process_pool import Engine, Pool, cores
from registry_tools.batch.readers.input_files import Files, open_files, without_secrets
from registry_tools.batch.readers.read_rows import BATCH_ROWS, BLOCK_BYTES
from registry_tools.batch.row_stream import REASON, Progress, ScoringRequest, Tally, Task
from registry_tools.batch.run_log import ScoringRun
from registry_tools.batch.validation.columns import check_schema
from registry_tools.batch.writers import table_writers
from registry_tools.data.schema import Column, quoted_names
from registry_tools.errors import InputError, RegistryToolsError, UnsupportedOperation
from registry_tools.inference.artifact_fetcher import ArtifactFetcher
from registry_tools.inference.model_artifact import ModelArtifact
from registry_tools.mlflow_store.client import connect
from registry_tools.models.formats import describe
from registry_tools.models.trust_policy import TrustPolicy


@dataclass(frozen=True)
class Summary:
    """What came of it."""

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
    begin: Callable[[Files], Progress] = lambda files: lambda done, rows: None,
) -> Summary:
    """Score files with the version that a reference means now.

    Parameters
    ----------
    request, policy, tracking_uri
        What is asked for, what the model may contain, and where the registry is.
    begin
        Is told of the files before the first row is read; returns what is told of the progress.

    Raises
    ------
    InputError
        If the files do not fit the signature or each other, a row cannot be scored and there is
        no file of rejects, or the output cannot be written. Nothing stands under its name then.
    RegistryToolsError
        As `load_model`.
    """
    files = open_files(request.input)
    _check_places(request, files)
    with contextlib.ExitStack() as stack:
        engine = _engine(request, files)
        stack.callback(engine.close)
        client = connect(tracking_uri)
        fetcher = ArtifactFetcher(request.ref, policy, tracking_uri, None)
        stack.callback(fetcher.close)
        version = fetcher.resolve()  # the one that answers, wherever the stage moves meanwhile
        artifact = fetcher.fetch(version)
        columns = _columns(artifact)
        for shown in files.shown[:1]:
            check_schema(files.schema, columns, shown, files.is_text)
        _check_taken(files, ["prediction", "prediction_name", "model_version"])
        record = ScoringRun(client, version.name, _tags(request, artifact))
        with _recorded(record):
            added = engine.load(artifact, policy, request.proba, files.is_text)
            _check_taken(files, added)
            task = Task(request, files, columns, artifact, engine, added)
            began = time.perf_counter()
            tally = _run(task, begin(files))
            seconds = time.perf_counter() - began
            figures = {
                "rows": tally.rows,
                "rejected": tally.rejected,
                "seconds": seconds,
                "rows_per_second": (tally.rows + tally.rejected) / max(seconds, 1e-9),
            }
            record.done(figures, tally.counts)
        return Summary(
            name=version.name,
            version=version.version,
            stage=request.ref.stage,
            input=without_secrets(request.input),
            output=str(request.output),
            rows=tally.rows,
            rejected=tally.rejected,
            rejects=str(request.rejects) if request.rejects else None,
            seconds=seconds,
            rows_per_second=figures["rows_per_second"],
            counts=dict(sorted(tally.counts.items())),
            experiment=record.experiment,
            run_id=record.run_id,
        )


def _run(task: Task, progress: Progress) -> Tally:
    """Carry over what can be; else, or when rows are to be left out, let all rows through."""
    footers = row_groups.footers_of(task)
    if footers is not None:
        with contextlib.suppress(row_groups.Unfit):
            return row_groups.run(task, footers, progress)
    return task.run(progress)


def _engine(request: ScoringRequest, files: Files) -> Engine:
    if request.master is None:
        return Pool(_workers(request, files))
    from registry_tools.batch.engines.spark import SparkAnswers

    return SparkAnswers(request.master)


def _workers(request: ScoringRequest, files: Files) -> int:
    """Return how many processes are worth starting."""
    wanted = request.workers or cores()
    batches = files.total // (BLOCK_BYTES if files.is_text else BATCH_ROWS) + 1
    return max(1, min(wanted, batches))


@contextlib.contextmanager
def _recorded(record: ScoringRun) -> Iterator[None]:
    """End the run as what became of the scoring."""
    try:
        yield
    except RegistryToolsError as error:
        record.failed("FAILED", str(error))
        raise
    except BaseException as error:
        killed = isinstance(error, (KeyboardInterrupt, SystemExit))
        record.failed("KILLED" if killed else "FAILED", "interrupted" if killed else str(error))
        raise


def _columns(artifact: ModelArtifact) -> tuple[Column, ...]:
    columns = describe(artifact.model).signature
    if columns is None:
        raise UnsupportedOperation(
            f"{artifact} does not name and type its columns, so that files cannot be compared with "
            "its signature: register it with one, or use predict"
        )
    return columns


def _check_places(request: ScoringRequest, files: Files) -> None:
    """Refuse an output that is an input, or would be one the next time."""
    targets = [request.output, *([request.rejects] if request.rejects else [])]
    for target in targets:
        table_writers.check_target(target)
        table_writers.check_columns(target, files.schema, files.shown[0])
        if "://" in request.input:
            continue
        given = Path(request.input).resolve()
        if target.resolve() in {given, *(Path(one.path).resolve() for one in files.known)}:
            raise InputError(f"{target}: it is the input as well: name another output")
        if given.is_dir() and given in target.resolve().parents:
            raise InputError(
                f"{target}: it lies in the folder that is read, and would be input the next time: "
                "name another output"
            )
    if len({target.resolve() for target in targets}) < len(targets):
        raise InputError(f"{request.output}: output and rejects are the same file")
    if request.rejects is not None:
        _check_taken(files, [REASON])


def _check_taken(files: Files, added: list[str]) -> None:
    taken = [name for name in added if name in files.schema.names]
    if taken:
        raise InputError(
            f"{files.shown[0]}: it already has the column{'s' * (len(taken) > 1)} "
            f"{quoted_names(taken)}, which the output adds: rename or drop "
            f"{'them' if len(taken) > 1 else 'it'}"
        )


def _tags(request: ScoringRequest, artifact: ModelArtifact) -> dict[str, str]:
    return {
        "model": artifact.name,
        "version": str(artifact.version),
        **({"stage": artifact.stage} if artifact.stage else {}),
        **({"digest": artifact.digest} if artifact.digest else {}),
        "input": without_secrets(request.input),
        "output": str(request.output),
        "engine": "spark" if request.master is not None else "processes",
        "mlflow.runName": f"{artifact} on {Path(without_secrets(request.input)).name}",
    }
