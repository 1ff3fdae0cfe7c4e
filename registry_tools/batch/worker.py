"""A process that loads one version once, and scores slices: reads, predicts and writes their parts."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import sklearn
import skops.io  # noqa: F401 - while the command resolves the version

from registry_tools.batch.job import ScoringJob, SliceResult
from registry_tools.batch.predictions import BatchPredictor, class_counts
from registry_tools.batch.slices import Slice
from registry_tools.data.arrow_coercion import coerce_batch, to_arrow
from registry_tools.data.coerced_batch import CoercedBatch
from registry_tools.errors import InputError
from registry_tools.files.part_files import read_arrow, write_part
from registry_tools.inference import model_loader
from registry_tools.inference.model_artifact import ModelArtifact
from registry_tools.models.trust_policy import TrustPolicy

# So few rows at once that their columns stay in the cache of the processor, and progress is seen.
_STEP_ROWS = 1 << 15


@functools.lru_cache(1)
def load(artifact: ModelArtifact, policy: TrustPolicy, proba: bool, csv: bool) -> BatchPredictor:
    """Load a version whose files were verified, once in this process.

    Raises
    ------
    VerificationError
        If it holds untrusted types, or does not reproduce its recorded predictions.
    """
    predictor = model_loader.load(artifact, policy)
    # Values that are not finite are found by the coercion; a model that takes missing values is
    # called with another setting.
    sklearn.set_config(assume_finite=True, skip_parameter_validation=True)
    return BatchPredictor(predictor, proba, csv)


def prediction_schema(artifact: ModelArtifact, policy: TrustPolicy, proba: bool, csv: bool) -> pa.Schema:
    """Load a version, and return the columns of its predictions."""
    predictor = load(artifact, policy, proba, csv)
    predictor.probability_columns()
    return predictor.predict_coerced(CoercedBatch(0, {}), {})[0].schema


def score_slice(job: ScoringJob, number: int, piece: Slice, rows_done: Any) -> SliceResult:
    """Write the rows of a slice with their predictions, and its rejects, as parts.

    Raises
    ------
    InputError
        If a row cannot be scored and there is no file for it, or the file is changed or broken.
    """
    result = SliceResult()
    rejects: list[pa.RecordBatch] = []
    write_part(job.part(number), job.form, _score(job, piece, result, rejects, rows_done), job.options)
    if job.rejects_form is not None:
        write_part(job.rejects_part(number), job.rejects_form, iter(rejects), {})
    return result


def _score(
    job: ScoringJob, piece: Slice, result: SliceResult, rejects: list[pa.RecordBatch], rows_done: Any
) -> Iterator[pa.RecordBatch]:
    """Yield the rows that can be scored, with their predictions, and count them."""
    predictor = load(job.artifact, job.policy, job.proba, job.csv)
    place, schema = 0, None
    for rows in _read(job, piece):
        count = rows.num_rows
        malformed = {row - place: why for row, why in piece.bad.items() if place <= row < place + count}
        coerced = coerce_batch(rows, job.columns, job.csv)
        predictions, bad = predictor.predict_coerced(coerced, malformed)
        if bad:
            first = piece.first_row + place
            reasons = [f"{piece.file.name}: row {first + row}: {bad[row]}" for row in sorted(bad)]
            if job.rejects_form is None:
                raise bad_row_error(reasons[0])
            arrays = [*rows.take(pa.array(sorted(bad))).columns, pa.array(reasons, pa.string())]
            rejects.append(pa.RecordBatch.from_arrays(arrays, schema=job.rejects_schema))
            good = np.ones(count, bool)
            good[list(bad)] = False
            rows, coerced = rows.filter(pa.array(good)), coerced.keep_rows(good)
        result.add(
            SliceResult(
                rows.num_rows,
                len(bad),
                Counter(class_counts(predictions, bool(predictor.predictor.model.class_names))),
            )
        )
        if rows.num_rows:
            schema = schema or job.output_schema(predictions.schema)
            arrays = output_columns(job, rows, coerced, predictions)
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)
        place += count
        with rows_done.get_lock():
            rows_done.value += count


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


def bad_row_error(reason: str) -> InputError:
    """Return the error of a job that a row ends."""
    return InputError(
        f"{reason} (rows count from 0; --on-bad-row reject puts such rows into a file of their own)"
    )


def output_columns(
    job: ScoringJob, rows: pa.RecordBatch, coerced: CoercedBatch, predictions: pa.RecordBatch
) -> list[pa.Array]:
    """Return the columns of the output for rows that can be scored."""
    kept = {name: rows.column(name) for name in job.keep}
    if job.converts_text:
        kept |= {c.name: to_arrow(coerced, c) for c in job.columns if c.name in kept}
    added = predictions.columns
    added.insert(2, pa.repeat(pa.scalar(job.artifact.version, pa.int32()), rows.num_rows))
    return [*kept.values(), *added]
