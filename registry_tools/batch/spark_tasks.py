"""The part of a scoring on Spark that executors run: load the version once, then score Arrow batches."""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import sklearn
from pyspark import Accumulator, SparkFiles

from registry_tools.batch.predictions import BatchPredictor, class_counts
from registry_tools.data.arrow_coercion import coerce_batch, to_arrow
from registry_tools.errors import InputError
from registry_tools.inference.model_artifact import ModelArtifact
from registry_tools.inference.model_loader import load
from registry_tools.models import manifest
from registry_tools.models.trust_policy import TrustPolicy

ROWS, REJECTED = "rows", "rejected"
Counts = Counter[Any]  # by ROWS, REJECTED, and by (class,)


class AddCounts:
    """Adds up the counts of tasks; Spark takes those of each partition once, whatever it retries."""

    def zero(self, value: Counts) -> Counts:
        """Return nothing counted."""
        return Counter()

    def addInPlace(self, value1: Counts, value2: Counts) -> Counts:
        """Add the counts of a task."""
        value1.update(value2)
        return value1


@dataclass(frozen=True)
class ShippedModel:
    """A version as the driver sends it to the executors: an archive, and what it has to contain."""

    archive: str  # its name among the files of the Spark job
    digest: str  # of all files in the archive
    artifact: ModelArtifact  # as it lies on the driver
    policy: TrustPolicy
    proba: bool
    text: bool  # whether the rows are the text of a CSV


@functools.lru_cache(maxsize=1)
def _load_predictor(model: ShippedModel) -> BatchPredictor:
    """Verify, inspect and load the version; a Python worker does this once for all its tasks."""
    folder = SparkFiles.get(model.archive)
    manifest.check_files(Path(folder), model.digest)
    predictor = load(dataclasses.replace(model.artifact, folder=folder), model.policy)
    # The coercion finds values that are not finite.
    sklearn.set_config(assume_finite=True, skip_parameter_validation=True)
    return BatchPredictor(predictor, model.proba, model.text)


@dataclass(frozen=True)
class ScoringTask:
    """Scores the rows of one partition; Spark sends it to the executors as it is.

    A batch has the columns of the input, then the file of each row, then its number in the file
    (Parquet) or the line if it is malformed (CSV).
    """

    model: ShippedModel
    carried: tuple[str, ...]  # columns of the input that are written
    converted: bool  # whether their text becomes the types of the signature
    prefix: str  # of the added columns
    schema: pa.Schema  # of what is written
    counts: Accumulator[Counts] | None = None
    rejects: bool = True  # whether another task writes the rows that cannot be scored

    def score(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield the rows that can be scored with their predictions.

        Raises
        ------
        InputError
            If a row cannot be scored, and rejects are not written.
        """
        for rows, reasons, predictions in self._predict(batches):
            if reasons and not self.rejects:
                raise InputError(reasons[min(reasons)])
            if self.counts is not None:
                classes = {(name,): count for name, count in class_counts(predictions).items()}
                self.counts.add(Counts({ROWS: len(predictions), REJECTED: len(reasons)} | classes))
            good = rows.filter(~_mask(rows.num_rows, reasons))
            arrays = {name: good.column(name) for name in self.carried}
            if self.converted:
                columns = _load_predictor(self.model).predictor.info.signature or ()
                coerced = coerce_batch(good, columns, text=True)
                arrays |= {c.name: to_arrow(coerced, c) for c in columns if c.name in arrays}
            version = pa.scalar(self.model.artifact.version, pa.int32())
            added = {name: predictions.column(name) for name in predictions.schema.names}
            added["model_version"] = pa.repeat(version, good.num_rows)
            yield self._to_batch(arrays | {f"{self.prefix}{name}": a for name, a in added.items()})

    def reject(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield the rows that cannot be scored with the reason."""
        for rows, reasons, _ in self._predict(batches):
            places = sorted(reasons)
            bad = rows.take(pa.array(places, pa.int64()))
            arrays = {name: bad.column(name) for name in rows.schema.names}
            yield self._to_batch(arrays | {"reason": pa.array([reasons[p] for p in places], pa.string())})

    def _to_batch(self, arrays: dict[str, pa.Array]) -> pa.RecordBatch:
        ordered = [arrays[field.name].cast(field.type) for field in self.schema]
        return pa.RecordBatch.from_arrays(ordered, schema=self.schema)

    def _predict(
        self, batches: Iterator[pa.RecordBatch]
    ) -> Iterator[tuple[pa.RecordBatch, dict[int, str], pa.RecordBatch]]:
        """Yield rows, why some of them cannot be scored, and the predictions of the others."""
        predictor = _load_predictor(self.model)
        numbers = _RowNumbers()
        for batch in batches:
            *columns, files, extra = batch.columns
            malformed: dict[int, str] = {}
            if self.model.text:
                columns = [pc.fill_null(column, "") for column in columns]  # Spark reads nothing as null
                malformed = _malformed_lines(extra, len(columns))
            rows = pa.RecordBatch.from_arrays(columns, batch.schema.names[: len(columns)])
            good = ~_mask(len(rows), malformed)
            predictions, refused = predictor.predict(rows.filter(good) if malformed else rows)
            places = np.flatnonzero(good)
            reasons = malformed | {int(places[row]): reason for row, reason in refused.items()}
            row_numbers = numbers.of(files) if self.model.text else extra.to_numpy()
            located = {
                place: f"{file_name(files[place].as_py())}: row {row_numbers[place]}: {reason}"
                for place, reason in reasons.items()
            }
            yield rows, located, predictions


class _RowNumbers:
    """Counts the rows of each file of a partition, which Spark reads one after another."""

    def __init__(self) -> None:
        self._file, self._next = "", 0

    def of(self, files: pa.Array) -> npt.NDArray[np.int64]:
        """Return the number of each row in its file, from 0."""
        runs, begin, parts = pc.run_end_encode(files), 0, [np.empty(0, np.int64)]
        for file, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
            if file != self._file:
                self._file, self._next = file, 0
            parts.append(np.arange(self._next, self._next + end - begin))
            self._next += end - begin
            begin = end
        return np.concatenate(parts)


def _mask(rows: int, places: dict[int, str]) -> npt.NDArray[np.bool_]:
    marked = np.zeros(rows, bool)
    marked[list(places)] = True
    return marked


def _malformed_lines(lines: pa.Array, width: int) -> dict[int, str]:
    """Return why lines of a CSV are no rows, by row of the batch."""
    places = np.flatnonzero(lines.is_valid().to_numpy(zero_copy_only=False)).tolist()
    return {place: _malformed_reason(lines[place].as_py(), width) for place in places}


def _malformed_reason(line: str, width: int) -> str:
    csv.field_size_limit(max(csv.field_size_limit(), len(line)))
    values = len(next(csv.reader(io.StringIO(line)), []))
    return f"{values} values, and the header names {width}"


def file_name(uri: str) -> str:
    """Return the name of a file as a user writes it."""
    return re.sub(r"^file:(//)?(?=/)", "", unquote(uri))
