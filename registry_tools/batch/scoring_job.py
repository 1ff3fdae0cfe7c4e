"""One scoring job: files in, one file or a folder out, written atomically, recorded as a run."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
from pyarrow import fs

from registry_tools.batch import slices, worker_pool
from registry_tools.batch.job import REASON, ScoringJob, SliceResult
from registry_tools.batch.request import ScoringRequest, ScoringSummary
from registry_tools.batch.worker_pool import WorkerPool
from registry_tools.data.arrow_coercion import check_schema
from registry_tools.data.schema import Column, quoted_names
from registry_tools.errors import InputError, UnsupportedOperation
from registry_tools.files import part_files
from registry_tools.files.csv_rows import BLOCK_BYTES, CsvFormat
from registry_tools.files.input_files import InputFiles, open_files, open_filesystem, without_secrets
from registry_tools.files.output_file import check_output, folder_beside, output_file, output_folder
from registry_tools.inference.model_artifact import ModelArtifact
from registry_tools.models.formats import describe
from registry_tools.models.trust_policy import TrustPolicy

if TYPE_CHECKING:
    from registry_tools.batch.run_log import ScoringRun

Progress = Callable[[int, int], None]  # how much of `InputFiles.total` is done; rows
_FEWEST_ROWS = 1 << 16  # that are worth another process


def score(
    request: ScoringRequest,
    policy: TrustPolicy,
    tracking_uri: str | None = None,
    begin: Callable[[InputFiles], Progress] = lambda files: lambda done, rows: None,
) -> ScoringSummary:
    """Score files with the version that a reference means now.

    It starts processes that import the main module of the program: guard a script of your own by
    `if __name__ == "__main__"`.

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
    files = open_files(request.input, CsvFormat(request.separator, request.encoding))
    keep = kept_columns(request, files.schema.names, files.files[0].name)
    form, rejects_form = _check_outputs(request, files, keep)
    with contextlib.ExitStack() as stack:
        pool = WorkerPool(_worker_count(request, files))
        stack.callback(pool.close)
        # Only now, while the processes import what they need.
        from registry_tools.batch.run_log import ScoringRun
        from registry_tools.inference.artifact_fetcher import ArtifactFetcher
        from registry_tools.mlflow_store.client import connect

        client = connect(tracking_uri)
        fetcher = ArtifactFetcher(request.ref, policy, tracking_uri, None)
        stack.callback(fetcher.close)
        artifact = fetcher.fetch(fetcher.resolve())  # whose version predicts, wherever the stage moves
        columns = signature_columns(artifact)
        check_schema(files.schema, columns, files.files[0].name, files.csv is not None)
        record = stack.enter_context(ScoringRun(client, artifact.name, run_tags(request, artifact)))
        pool.version = str(artifact)
        text = files.csv is not None
        predictions = pool.run(worker_pool.prediction_schema, artifact, policy, request.proba, text)
        job = ScoringJob(
            *(artifact, policy, request.proba, text, columns, files.schema, keep, request.prefix),
            *(form, rejects_form),
        )
        schema = job.output_schema(predictions)
        refuse_existing_columns(keep, schema.names[len(keep) :], files.files[0].name)
        job = replace(job, options=part_files.parquet_options(schema, len(keep), files.metadata))
        began = time.perf_counter()
        total = _score_files(request, files, job, schema, pool, begin(files))
        return finish(record, request, artifact, total, time.perf_counter() - began)


def _score_files(
    request: ScoringRequest,
    files: InputFiles,
    job: ScoringJob,
    schema: pa.Schema,
    pool: WorkerPool,
    progress: Progress,
) -> SliceResult:
    """Score all rows, and return how many there are; the output is in its place then."""
    total = SliceResult()
    rejects: list[Path] = []
    with contextlib.ExitStack() as stack:
        # Contexts end in reverse order: the output is renamed last, when the rejects are complete.
        place = output_folder if request.folder else output_file
        output = stack.enter_context(place(request.output))
        rejects_output = stack.enter_context(output_file(request.rejects)) if request.rejects else None
        scratch = stack.enter_context(folder_beside(request.output))
        stack.push(lambda kind, *_: pool.close() if kind else None)  # before their files are deleted
        job = replace(job, parts=output if request.folder else scratch, scratch=scratch)
        work = slices.cut_text(files, scratch) if job.csv else slices.cut_row_groups(files, pool.workers)

        def parts() -> Iterator[Path]:
            for number, result in pool.score(job, work, progress):
                total.add(result)
                if result.rejected:
                    rejects.append(job.rejects_part(number))
                if result.rows:
                    yield job.part(number)
            progress(files.total, total.rows + total.rejected)

        if not request.folder:
            part_files.assemble(output, job.form, parts(), schema, job.options)
        elif not list(parts()):  # a folder without a file is no table
            part_files.assemble(output / "part-00000000.parquet", job.form, [], schema, job.options)
        if rejects_output is not None and job.rejects_form is not None:
            part_files.assemble(rejects_output, job.rejects_form, rejects, job.rejects_schema, {})
    return total


def finish(
    record: ScoringRun, request: ScoringRequest, artifact: ModelArtifact, total: SliceResult, seconds: float
) -> ScoringSummary:
    """Log the metrics of a job, end its run, and return its summary."""
    # Incomplete if a batch had too many numbers to count.
    counts = dict(sorted(total.counts.items())) if total.counts.total() == total.rows else {}
    metrics = {
        "rows": total.rows,
        "rejected": total.rejected,
        "seconds": seconds,
        "rows_per_second": (total.rows + total.rejected) / max(seconds, 1e-9),
    }
    record.finish(metrics, counts)
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
        counts=counts,
        experiment=record.experiment,
        run_id=record.run_id,
    )


def _worker_count(request: ScoringRequest, files: InputFiles) -> int:
    """Return how many processes are worth starting."""
    most = request.workers or worker_pool.available_cores()
    return max(1, min(most, files.total // (BLOCK_BYTES if files.csv else _FEWEST_ROWS) + 1))


def kept_columns(request: ScoringRequest, names: list[str], where: str) -> list[str]:
    """Return the columns of the input that are in the output.

    Raises
    ------
    InputError
        If `where` lacks one that is wanted.
    """
    unknown = [name for name in request.keep or () if name not in names]
    if unknown:
        raise InputError(f"{where}: no column {quoted_names(unknown)} to keep; it has {quoted_names(names)}")
    return [name for name in names if request.keep is None or name in request.keep]


def signature_columns(artifact: ModelArtifact) -> tuple[Column, ...]:
    """Return the columns that a version takes.

    Raises
    ------
    UnsupportedOperation
        If its signature does not name and type them.
    """
    columns = describe(artifact.model).signature
    if columns is None:
        raise UnsupportedOperation(
            f"{artifact} does not name and type its columns, so that files cannot be compared with "
            "its signature: register it with one, or use predict"
        )
    return columns


def _check_outputs(request: ScoringRequest, files: InputFiles, keep: list[str]) -> tuple[str, str | None]:
    """Return the formats of the parts; refuse an output that is an input, or would be one the next time."""
    where, forms = files.files[0].name, []
    wanted = [(request.output, request.folder, pa.schema([files.schema.field(name) for name in keep]))]
    if request.rejects is not None:
        wanted.append((request.rejects, False, files.schema))
        refuse_existing_columns(files.schema.names, [request.prefix + REASON], where)
        output, rejects = request.output.resolve(), request.rejects.resolve()
        if rejects == output:
            raise InputError(f"{request.output}: output and rejects are the same file")
        if output in rejects.parents or rejects in output.parents:
            raise InputError(
                f"{request.rejects}: the rejects and the output {request.output} cannot lie in each other: "
                "name a file for the rejects elsewhere"
            )
    local = isinstance(files.files[0].filesystem, fs.LocalFileSystem)
    given = Path(open_filesystem(request.input)[1]).resolve() if local else None
    for target, folder, schema in wanted:
        check_output(target, folder, part_files.FORMATS)
        forms.append(part_files.PARQUET if folder else part_files.FORMATS[target.suffix.lower()])
        if forms[-1] == part_files.CSV:
            part_files.check_csv_columns(target, schema, where)
        if target.resolve() in {given, *(Path(one.path).resolve() for one in files.files)}:
            raise InputError(f"{target}: it is the input as well: name another output")
        if given in target.resolve().parents:
            raise InputError(
                f"{target}: it lies in the folder that is read, and would be input the next time: "
                "name another output"
            )
    return forms[0], forms[1] if request.rejects else None


def refuse_existing_columns(names: list[str], added: list[str], where: str) -> None:
    """Refuse columns that the output adds and already has.

    Raises
    ------
    InputError
        Names them and `where` they are.
    """
    taken = [name for name in added if name in names]
    if taken:
        raise InputError(
            f"{where}: it already has the column{'s' * (len(taken) > 1)} {quoted_names(taken)}, which the "
            "output adds: rename them with --prefix, or leave yours out with --keep"
        )


def run_tags(request: ScoringRequest, artifact: ModelArtifact) -> dict[str, str]:
    """Return the tags of the run of a job."""
    given = without_secrets(request.input)
    tags = {
        "model": artifact.name,
        "version": str(artifact.version),
        "stage": artifact.stage,
        "digest": artifact.digest,
        "input": given,
        "output": str(request.output),
        "engine": "spark" if request.master is not None else "processes",
        "mlflow.runName": f"{artifact} on {Path(given).name}",
    }
    return {key: value for key, value in tags.items() if value}
