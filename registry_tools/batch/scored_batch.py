"""One batch of rows scored: the same coercion, rejects, columns and counts on every engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from registry_tools.batch.job import ScoringJob, SliceResult
from registry_tools.batch.predictions import BatchPredictor, class_counts
from registry_tools.data.arrow_coercion import coerce_batch, to_arrow
from registry_tools.data.coerced_batch import CoercedBatch
from registry_tools.errors import InputError


class ScoredBatch(NamedTuple):
    """The rows of a batch that were scored, those that were rejected, and how many there are."""

    rows: pa.RecordBatch  # of the output
    rejects: pa.RecordBatch | None  # None if all rows were scored
    result: SliceResult


def score_batch(
    job: ScoringJob,
    predictor: BatchPredictor,
    rows: pa.RecordBatch,
    malformed: Mapping[int, str],
    locate: Callable[[int], str],
    schema: pa.Schema | None,
) -> ScoredBatch:
    """Score a batch, and separate the rows that cannot be scored.

    Parameters
    ----------
    job, predictor, rows
        The job, its version, and the columns of the input that the job reads.
    malformed
        The reasons why rows of the batch are malformed.
    locate
        Returns the name of the file and the number in it of a row of the batch.
    schema
        The columns of the output; None takes the types that the model returns.

    Raises
    ------
    InputError
        If a row cannot be scored, and the job has no rejects.
    """
    coerced = coerce_batch(rows, job.columns, job.csv is not None)
    predictions, bad = predictor.predict(coerced, malformed)
    counts = class_counts(predictions, bool(predictor.predictor.model.class_names))
    result = SliceResult(len(predictions), len(bad), Counter(counts))
    rejects = None
    if bad:
        rejects = _rejects(job, rows, {row: f"{locate(row)}: {bad[row]}" for row in sorted(bad)})
        good = np.ones(rows.num_rows, bool)
        good[list(bad)] = False
        rows, coerced = rows.filter(pa.array(good)), coerced.keep_rows(good)
    arrays = _output_columns(job, rows, coerced, predictions)
    schema = schema or job.output_schema(predictions.schema)
    return ScoredBatch(pa.RecordBatch.from_arrays(arrays, schema=schema), rejects, result)


def _rejects(job: ScoringJob, rows: pa.RecordBatch, reasons: Mapping[int, str]) -> pa.RecordBatch:
    """Return the rows that cannot be scored, with their reasons."""
    if job.rejects_form is None:
        raise InputError(
            f"{next(iter(reasons.values()))} (rows count from 0; --on-bad-row reject puts such rows into a "
            "file of their own)"
        )
    arrays = [*rows.take(pa.array([*reasons])).columns, pa.array([*reasons.values()], pa.string())]
    return pa.RecordBatch.from_arrays(arrays, schema=job.rejects_schema)


def _output_columns(
    job: ScoringJob, rows: pa.RecordBatch, coerced: CoercedBatch, predictions: pa.RecordBatch
) -> list[pa.Array]:
    """Return the columns of the output for rows that can be scored."""
    kept = {name: rows.column(name) for name in job.keep}
    if job.converts_text:
        kept |= {c.name: to_arrow(coerced, c) for c in job.columns if c.name in kept}
    return [*kept.values(), *predictions.columns]
