"""The part of a scoring on Spark that executors run: load the version once, then score Arrow batches."""

from __future__ import annotations

import csv
import functools
import io
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark import AccumulatorParam, SparkFiles

from registry_tools.batch.job import ScoringJob, SliceResult
from registry_tools.batch.predictions import BatchPredictor, class_counts
from registry_tools.batch.worker import bad_row_error, load, output_columns
from registry_tools.data.arrow_coercion import coerce_batch
from registry_tools.inference.model_artifact import ModelArtifact
from registry_tools.models import manifest
from registry_tools.models.trust_policy import TrustPolicy

ARCHIVE = "registry_tools_version"  # the folder of the version's files on an executor
_UNDECODED = "\ufffd"  # takes the place of bytes that are not in the encoding


@functools.lru_cache(1)
def _load_verified(
    artifact: ModelArtifact, digest: str, policy: TrustPolicy, proba: bool, csv_input: bool
) -> BatchPredictor:
    """Compare the files that arrived with their digest, and load them, once in this process."""
    folder = SparkFiles.get(ARCHIVE)
    manifest.check_files(Path(folder), digest)
    return load(replace(artifact, folder=folder), policy, proba, csv_input)


class AddResults(AccumulatorParam[SliceResult]):  # type: ignore[misc]
    """Adds up the results of tasks; Spark takes one of each partition, whatever it retries."""

    def zero(self, value: SliceResult) -> SliceResult:
        """Return nothing counted."""
        return SliceResult()

    def addInPlace(self, total: SliceResult, result: SliceResult) -> SliceResult:
        """Add the rows of a task."""
        total.add(result)
        return total


@dataclass(frozen=True)
class SparkTask:
    """Scores the rows of one partition; Spark sends it to the executors as it is.

    A batch has the columns of the input that are read, then the file of each row, then its number in
    the file (Parquet) or, if it is malformed, its line (CSV).
    """

    job: ScoringJob
    digest: str  # of all files in the archive
    schema: pa.Schema  # of the output
    total: Any  # the accumulator that receives a `SliceResult` a batch

    def score(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield the rows that can be scored, with their predictions.

        Raises
        ------
        InputError
            If a row cannot be scored, and rejects are not written.
        """
        has_classes = bool(self._load().predictor.model.class_names)
        for rows, reasons, coerced, predictions in self._predict(batches):
            if reasons and self.job.rejects_form is None:
                raise bad_row_error(reasons[min(reasons)])
            good = np.ones(rows.num_rows, bool)
            good[list(reasons)] = False
            counts = Counter(class_counts(predictions, has_classes))
            self.total.add(SliceResult(rows=len(predictions), rejected=len(reasons), counts=counts))
            rows, coerced = rows.filter(pa.array(good)), coerced.keep_rows(good)
            arrays = output_columns(self.job, rows, coerced, predictions)
            cast = [array.cast(kind) for array, kind in zip(arrays, self.schema.types, strict=True)]
            yield pa.RecordBatch.from_arrays(cast, schema=self.schema)

    def reject(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield the rows that cannot be scored, with the reason."""
        for rows, reasons, _, _ in self._predict(batches):
            self.total.add(SliceResult(rejected=len(reasons)))
            bad = rows.take(pa.array(sorted(reasons), pa.int64()))
            texts = pa.array([reasons[place] for place in sorted(reasons)], pa.string())
            yield pa.RecordBatch.from_arrays([*bad.columns, texts], schema=self.job.rejects_schema)

    def _load(self) -> BatchPredictor:
        job = self.job
        return _load_verified(job.artifact, self.digest, job.policy, job.proba, job.csv)

    def _predict(self, batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[Any, ...]]:
        """Yield rows, the reasons of those that cannot be scored, and the predictions of the others."""
        job, predictor = self.job, self._load()
        before: Counter[str] = Counter()  # rows of each file; Spark does not split a CSV
        for batch in batches:
            *columns, files, extra = batch.columns
            malformed: dict[int, str] = {}
            if job.csv:
                columns = [pc.fill_null(column, "") for column in columns]  # Spark reads nothing as null
                malformed = _undecoded_rows(columns, job) | _malformed_rows(extra, len(job.schema))
            rows = pa.RecordBatch.from_arrays(columns, job.read)
            coerced = coerce_batch(rows, job.columns, job.csv)
            predictions, bad = predictor.predict_coerced(coerced, malformed)
            reasons = {}
            for place, reason in bad.items():
                file, number = files[place].as_py(), extra[place].as_py()
                if job.csv:
                    number = before[file] + place - pc.index(files, file).as_py()
                reasons[place] = f"{file_name(file)}: row {number}: {reason}"
            yield rows, reasons, coerced, predictions
            before.update({each["values"]: each["counts"] for each in pc.value_counts(files).to_pylist()})


def _malformed_rows(lines: pa.Array, width: int) -> dict[int, str]:
    """Return why lines of a CSV are no rows, by row of the batch."""
    reasons = {}
    for place in np.flatnonzero(lines.is_valid()).tolist():
        line = lines[place].as_py()
        csv.field_size_limit(max(csv.field_size_limit(), len(line)))
        values = len(next(csv.reader(io.StringIO(line)), []))
        reasons[place] = f"{values} values, and the header names {width}"
    return reasons


def _undecoded_rows(columns: list[pa.Array], job: ScoringJob) -> dict[int, str]:
    """Return which rows have bytes that are not in the encoding of the file."""
    reasons: dict[int, str] = {}
    for name, values in zip(job.read, columns, strict=True):
        for place in np.flatnonzero(pc.match_substring(values, _UNDECODED)).tolist():
            reason = f"{values[place].as_py()[:60]!r} is not UTF-8 (--encoding names another)"
            reasons.setdefault(place, f"column {name!r}: {reason}")
    return reasons


def file_name(uri: str) -> str:
    """Return the name of a file as a user writes it."""
    return re.sub(r"^file:(//)?(?=/)", "", unquote(uri))
