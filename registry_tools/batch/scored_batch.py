"""One batch of rows scored: the same coercion, rejects, columns and counts on every engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from registry_tools.batch.job import RowCounts, ScoringJob
from registry_tools.data.arrow_coercion import coerce_batch, to_arrow
from registry_tools.errors import InputError

if TYPE_CHECKING:
    from registry_tools.inference.batch_predictor import BatchPredictor

_MOST_UNNAMED = 1000  # whole numbers that are counted as if they were classes
ScoredBatch = tuple[pa.RecordBatch, "pa.RecordBatch | None", RowCounts]


def score_batch(
    job: ScoringJob,
    predictor: BatchPredictor,
    rows: pa.RecordBatch,
    malformed: Mapping[int, str],
    locate: Callable[[int], str],
    schema: pa.Schema | None,
) -> ScoredBatch:
    """Return the rows of the output, the rejects or None, and how many rows there are.

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
        If a row cannot be scored and the job has no rejects, or the model refuses every row.
    RegistryToolsError
        If the model fails otherwise.
    """
    coerced = coerce_batch(rows, job.columns, job.csv is not None)
    bad = {**coerced.reasons, **malformed}
    good = np.ones(rows.num_rows, bool)
    good[[*bad]] = False
    places = np.flatnonzero(good)
    predictions, refused = predictor.predict(coerced.keep_rows(good) if bad else coerced)
    bad |= {int(places[row]): reason for row, reason in refused.items()}
    counts = class_counts(predictions, bool(predictor.predictor.model.class_names))
    rejects = None
    if bad:
        rejects = _rejects(job, rows, {row: f"{locate(row)}: {bad[row]}" for row in sorted(bad)})
        good[[*bad]] = False
        rows, coerced = rows.filter(pa.array(good)), coerced.keep_rows(good)
    kept = {name: rows.column(name) for name in job.keep}
    if job.converts_text:
        kept |= {c.name: to_arrow(coerced, c) for c in job.columns if c.name in kept}
    schema = schema or job.output_schema(predictions.schema)
    scored = pa.RecordBatch.from_arrays([*kept.values(), *predictions.columns], schema=schema)
    return scored, rejects, RowCounts(len(predictions), len(bad), counts)


def _rejects(job: ScoringJob, rows: pa.RecordBatch, reasons: Mapping[int, str]) -> pa.RecordBatch:
    """Return the rows that cannot be scored, with their reasons."""
    if job.rejects_form is None:
        raise InputError(
            f"{next(iter(reasons.values()))} (rows count from 0; --on-bad-row reject puts such rows into a "
            "file of their own)"
        )
    arrays = [*rows.take(pa.array([*reasons])).columns, pa.array([*reasons.values()], pa.string())]
    return pa.RecordBatch.from_arrays(arrays, schema=job.rejects_schema)


def class_counts(predictions: pa.RecordBatch, has_classes: bool) -> Counter[str]:
    """Return how many rows there are of each class; nothing where numbers are predicted.

    Parameters
    ----------
    predictions
        The columns of the predictions.
    has_classes
        Whether the model has classes. Whole numbers of another one, such as those of clusters, are
        counted if there are at most 1,000.
    """
    names, predicted = predictions.column("prediction_name"), predictions.column("prediction")
    if names.null_count < len(names):
        counts = np.bincount(names.indices).tolist()
        return Counter(
            {n: count for n, count in zip(names.dictionary.to_pylist(), counts, strict=False) if count}
        )
    if not pa.types.is_integer(predicted.type) and not pa.types.is_boolean(predicted.type):
        return Counter()
    counts = pc.value_counts(predicted)
    if not has_classes and len(counts) > _MOST_UNNAMED:
        return Counter()
    return Counter({str(pair["values"]): pair["counts"] for pair in counts.to_pylist()})
