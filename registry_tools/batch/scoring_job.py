"""One scoring job: files in, one file or a folder out, written atomically, recorded as a run."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from registry_tools.batch import slices, worker_pool
from registry_tools.batch.job import REASON, ScoringJob, SliceResult, kept_columns, refuse_existing_columns
from registry_tools.batch.request import ScoringRequest, ScoringSummary
from registry_tools.batch.worker_pool import WorkerPool
from registry_tools.data.arrow_coercion import check_schema
from registry_tools.errors import InputError
from registry_tools.files import part_files
from registry_tools.files.csv_rows import BLOCK_BYTES, CsvFormat
from registry_tools.files.input_files import InputFiles, open_files, open_filesystem
from registry_tools.files.output_file import check_output, folder_beside, output_file, output_folder
from registry_tools.models.trust_policy import TrustPolicy

Progress = Callable[[int, int], None]  # how much of `InputFiles.total` is done; rows


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
    where = files.files[0].name
    keep = kept_columns(request, files.schema.names, where)
    form, rejects_form = _check_outputs(request, files, keep)
    with contextlib.ExitStack() as stack:
        pool = WorkerPool(_worker_count(request, files))
        stack.callback(pool.close)
        # It imports MLflow: only now, while the processes import what they need.
        from registry_tools.batch.job_context import fetched_version, recorded_run

        artifact, columns = stack.enter_context(fetched_version(request, policy, tracking_uri))
        check_schema(files.schema, columns, where, files.csv is not None)
        record = stack.enter_context(recorded_run(request, artifact, tracking_uri))
        pool.version = str(artifact)
        predictions = pool.run(worker_pool.prediction_schema, artifact, policy, request.proba)
        job = ScoringJob(
            request, artifact, policy, columns, files.schema, files.csv, keep, form, rejects_form
        )
        schema = job.output_schema(predictions)
        refuse_existing_columns(keep, schema.names[len(keep) :], where)
        began = time.perf_counter()
        total = _score_files(files, job, schema, pool, begin(files))
        return record.finish(total, time.perf_counter() - began)


def _score_files(
    files: InputFiles, job: ScoringJob, schema: pa.Schema, pool: WorkerPool, progress: Progress
) -> SliceResult:
    """Score all rows, and return how many there are; the output is in its place then."""
    request, target, total = job.request, Path(job.request.output), SliceResult()
    rejects: list[Path] = []
    with contextlib.ExitStack() as stack:
        # Contexts end in reverse order: the output is renamed last, when the rejects are complete.
        place = output_folder if request.folder else output_file
        output = stack.enter_context(place(target))
        rejects_output = stack.enter_context(output_file(Path(request.rejects))) if request.rejects else None
        scratch = stack.enter_context(folder_beside(target))
        stack.push(lambda kind, *_: pool.close() if kind else None)  # before their files are deleted
        options = part_files.parquet_options(schema, len(job.keep), files.metadata)
        parts_folder = output if request.folder else scratch
        job = replace(job, options=options, parts=parts_folder, scratch=scratch)
        work = slices.cut_text(files, scratch) if files.csv else slices.cut_row_groups(files, pool.workers)

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


def _worker_count(request: ScoringRequest, files: InputFiles) -> int:
    """Return how many processes are worth starting."""
    most = request.workers or worker_pool.available_cores()
    return max(1, min(most, files.total // (BLOCK_BYTES if files.csv else slices.FEWEST_ROWS) + 1))


def _check_outputs(request: ScoringRequest, files: InputFiles, keep: list[str]) -> tuple[str, str | None]:
    """Return the formats of the parts; refuse an output that is an input, or would be one the next time."""
    where, schema, forms = files.files[0].name, files.schema, []
    outputs = [(Path(request.output), request.folder, pa.schema([schema.field(name) for name in keep]))]
    if request.rejects is not None:
        outputs.append((Path(request.rejects), False, schema))
        refuse_existing_columns(schema.names, [request.prefix + REASON], where)
        output, rejects = (path.resolve() for path, *_ in outputs)
        if rejects == output:
            raise InputError(f"{request.output}: output and rejects are the same file")
        if output in rejects.parents or rejects in output.parents:
            raise InputError(
                f"{request.rejects}: the rejects and the output {request.output} cannot lie in each other: "
                "name a file for the rejects elsewhere"
            )
    inputs = [path.resolve() for path in _local_inputs(request.input, files)]
    for target, folder, columns in outputs:
        check_output(target, folder, part_files.FORMATS)
        forms.append(part_files.PARQUET if folder else part_files.FORMATS[target.suffix.lower()])
        if forms[-1] == part_files.CSV:
            part_files.check_csv_columns(target, columns, where)
        if target.resolve() in inputs:
            raise InputError(f"{target}: it is the input as well: name another output")
        if any(path in target.resolve().parents for path in inputs):
            raise InputError(
                f"{target}: it lies in the folder that is read, and would be input the next time: "
                "name another output"
            )
    return forms[0], forms[1] if request.rejects else None


def _local_inputs(address: str, files: InputFiles) -> list[Path]:
    """Return the paths on this machine that are read: the address that was given, and its files."""
    filesystem, path = open_filesystem(address)
    if not isinstance(filesystem, fs.LocalFileSystem):
        return []
    return [Path(path), *(Path(file.path) for file in files.files)]
