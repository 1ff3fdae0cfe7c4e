"""A process that loads one version once, and scores slices: reads, predicts and writes their parts."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import skops.io  # noqa: F401 - while the command resolves the version

from registry_tools.batch.job import ScoringJob, SliceResult
from registry_tools.batch.predictions import BatchPredictor
from registry_tools.batch.scored_batch import score_batch
from registry_tools.batch.slices import Slice
from registry_tools.data.coerced_batch import CoercedBatch
from registry_tools.errors import InputError
from registry_tools.files.part_files import read_arrow, write_part
from registry_tools.inference import model_loader
from registry_tools.inference.model_artifact import ModelArtifact
from registry_tools.models.trust_policy import TrustPolicy

# So few rows at once that their columns stay in the cache of the processor, and progress is seen.
_STEP_ROWS = 1 << 15


@functools.lru_cache(1)
def load(artifact: ModelArtifact, policy: TrustPolicy, proba: bool) -> BatchPredictor:
    """Load a version whose files were verified, once in this process.

    Raises
    ------
    VerificationError
        If it holds untrusted types, or does not reproduce its recorded predictions.
    """
    return BatchPredictor(model_loader.load(artifact, policy), proba)


def prediction_schema(artifact: ModelArtifact, policy: TrustPolicy, proba: bool) -> pa.Schema:
    """Load a version, and return the columns of its predictions."""
    return load(artifact, policy, proba).predict(CoercedBatch(0, {}), {})[0].schema


def score_slice(job: ScoringJob, number: int, piece: Slice, rows_done: Any) -> SliceResult:
    """Write the rows of a slice with their predictions, and its rejects, as parts.

    Raises
    ------
    InputError
        If a row cannot be scored and there is no file for it, or the file is changed or broken.
    """
    total = SliceResult()
    rejects: list[pa.RecordBatch] = []
    write_part(job.part(number), job.form, _score(job, piece, total, rejects, rows_done), job.options)
    if job.rejects_form is not None:
        write_part(job.rejects_part(number), job.rejects_form, iter(rejects), {})
    return total


def _score(
    job: ScoringJob, piece: Slice, total: SliceResult, rejects: list[pa.RecordBatch], rows_done: Any
) -> Iterator[pa.RecordBatch]:
    """Yield the rows that can be scored, with their predictions; count all, and collect the rejects."""
    predictor = load(job.artifact, job.policy, job.request.proba)
    begin, schema = 0, None
    for rows in _read(job, piece):
        end = begin + rows.num_rows
        malformed = {row - begin: reason for row, reason in piece.bad.items() if begin <= row < end}
        locate = functools.partial(_locate, piece.file.name, piece.first_row + begin)
        scored = score_batch(job, predictor, rows, malformed, locate, schema)
        total.add(scored.result)
        if scored.rejects is not None:
            rejects.append(scored.rejects)
        if scored.rows.num_rows:
            schema = scored.rows.schema
            yield scored.rows
        with rows_done.get_lock():
            rows_done.value += rows.num_rows
        begin = end


def _locate(file: str, first: int, row: int) -> str:
    """Return the file and the number in it of a row of a batch that begins with row `first`."""
    return f"{file}: row {first + row}"


def _read(job: ScoringJob, piece: Slice) -> Iterator[pa.RecordBatch]:
    """Read the rows of a slice, in small steps."""
    if piece.text is not None:
        for rows in read_arrow(piece.text):
            yield from (rows.slice(begin, _STEP_ROWS) for begin in range(0, rows.num_rows, _STEP_ROWS))
        return
    skip, left = piece.skip, piece.rows
    with piece.file.reading(), piece.file.open_parquet() as parquet:
        for rows in parquet.iter_batches(_STEP_ROWS, list(piece.row_groups), job.read, use_threads=False):
            part = rows.slice(min(skip, rows.num_rows), left)
            skip, left = max(skip - rows.num_rows, 0), left - part.num_rows
            if part.num_rows:
                yield part.select(job.read)
            if not left:
                break
        if left:
            raise InputError(f"{piece.file.name}: cannot be read: {left} rows fewer than its footer says")
