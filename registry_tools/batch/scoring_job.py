"""One scoring job: files in, one file or a folder out, written atomically, recorded as a run."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from registry_tools.batch import slices, worker_pool
from registry_tools.batch.job import RowCounts, ScoringJob, ScoringRequest, ScoringSummary, taken_columns
from registry_tools.batch.worker_pool import WorkerPool
from registry_tools.errors import InputError
from registry_tools.files import part_files
from registry_tools.files.csv_rows import BLOCK_BYTES
from registry_tools.files.input_files import InputFiles, open_files
from registry_tools.files.output_file import check_output, folder_beside, output_file, output_folder

Progress = Callable[[int, int], None]  # how much of `InputFiles.total` is done; rows


def score(
    request: ScoringRequest,
    tracking_uri: str | None = None,
    begin: Callable[[InputFiles], Progress] = lambda files: lambda done, rows: None,
) -> ScoringSummary:
    """Score files with the version that a reference means now.

    It starts processes that import the main module of the program: guard a script of your own by
    `if __name__ == "__main__"`.

    Parameters
    ----------
    request, tracking_uri
        The request, and where the registry is.
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
    files = open_files(request.input, request.csv)
    forms = _check_outputs(request, files)
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(contextlib.closing(WorkerPool(_worker_count(request, files))))
        # It imports MLflow: only now, while the processes import what they need.
        from registry_tools.batch.job_context import ScoringRun, fetched_version

        artifact, inputs = stack.enter_context(fetched_version(request, tracking_uri))
        pool.version = str(artifact)
        where = files.files[0].name
        columns = taken_columns(inputs, files.schema, where)
        job = ScoringJob(request, artifact, columns, where, files.schema, files.csv, *forms)
        run = stack.enter_context(ScoringRun(request, artifact, tracking_uri))
        schema = job.output_schema(pool.run(worker_pool.prediction_schema, job))
        began = time.perf_counter()
        total = _score_files(files, job, schema, pool, begin(files))
        return run.finish(total, time.perf_counter() - began)


def _score_files(
    files: InputFiles, job: ScoringJob, schema: pa.Schema, pool: WorkerPool, progress: Progress
) -> RowCounts:
    """Score all rows, and return how many there are; the output is in its place then."""
    request, target = job.request, Path(job.request.output)
    counts: list[RowCounts] = []  # by slice
    with contextlib.ExitStack() as stack:
        # Contexts end in reverse order: the output is renamed last, when the rejects are complete.
        place = output_folder if request.folder else output_file
        output = stack.enter_context(place(target))
        rejects = stack.enter_context(output_file(Path(request.rejects))) if request.rejects else None
        scratch = stack.enter_context(folder_beside(target))
        stack.push(lambda kind, *_: pool.close() if kind else None)  # before their files are deleted
        options = part_files.parquet_options(schema, len(job.keep), files.metadata)
        parts_folder = output if request.folder else scratch
        job = replace(job, options=options, parts=parts_folder, scratch=scratch)
        work = slices.cut_text(files, scratch) if files.csv else slices.cut_row_groups(files, pool.workers)

        def parts() -> Iterator[Path]:
            for number, each in enumerate(pool.score(job, work, progress)):
                counts.append(each)
                if each.rows:
                    yield job.part(number)

        if not request.folder:
            part_files.assemble(output, job.form, parts(), schema, options)
        elif not list(parts()):  # a folder without a file is no table
            part_files.assemble(job.part(0), job.form, [], schema, options)
        total = sum(counts, RowCounts())
        progress(files.total, total.rows + total.rejected)
        if rejects and job.rejects_form:
            written = [job.rejects_part(number) for number, each in enumerate(counts) if each.rejected]
            part_files.assemble(rejects, job.rejects_form, written, job.rejects_schema, {})
    return total


def _worker_count(request: ScoringRequest, files: InputFiles) -> int:
    """Return how many processes are worth starting, on the cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    worth = files.total // (BLOCK_BYTES if files.csv else slices.FEWEST_ROWS) + 1
    return max(1, min(request.workers or cores, worth))


def _check_outputs(request: ScoringRequest, files: InputFiles) -> tuple[str, str | None]:
    """Return the formats of the parts; refuse an output that is an input, or would be one the next time."""
    outputs = [(Path(request.output), request.folder)]
    if request.rejects is not None:
        outputs.append((Path(request.rejects), False))
        output, rejects = (path.resolve() for path, _ in outputs)
        if rejects == output:
            raise InputError(f"{request.output}: output and rejects are the same file")
        if output in rejects.parents or rejects in output.parents:
            raise InputError(
                f"{request.rejects}: the rejects and the output {request.output} cannot lie in each other: "
                "name a file for the rejects elsewhere"
            )
    for target, folder in outputs:
        check_output(target, folder, part_files.FORMATS, files.local_paths)
    form = part_files.PARQUET if request.folder else part_files.FORMATS[Path(request.output).suffix.lower()]
    if request.rejects is None:
        return form, None
    return form, part_files.FORMATS[Path(request.rejects).suffix.lower()]
