"""The part of a scoring on Spark that executors run: load the version once, then score Arrow batches."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark import AccumulatorParam, SparkFiles

from registry_tools.batch.job import ScoringJob, SliceResult
from registry_tools.batch.predictions import BatchPredictor
from registry_tools.batch.scored_batch import ScoredBatch, score_batch
from registry_tools.batch.worker import load
from registry_tools.files.csv_rows import CsvFormat, split_line
from registry_tools.inference.model_artifact import ModelArtifact
from registry_tools.models import manifest
from registry_tools.models.trust_policy import TrustPolicy

ARCHIVE = "registry_tools_version"  # the folder of the version's files on an executor
_UNDECODED = "\ufffd"  # takes the place of bytes that are not in the encoding


@functools.lru_cache(1)
def _load_verified(artifact: ModelArtifact, digest: str, policy: TrustPolicy, proba: bool) -> BatchPredictor:
    """Compare the files that arrived with their digest, and load them, once in this process."""
    folder = SparkFiles.get(ARCHIVE)
    manifest.check_files(Path(folder), digest)
    return load(replace(artifact, folder=folder), policy, proba)


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
        for scored in self._score_all(batches):
            yield scored.rows

    def reject(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield the rows that cannot be scored, with the reason."""
        for scored in self._score_all(batches):
            if scored.rejects is not None:
                yield scored.rejects

    def _score_all(self, batches: Iterator[pa.RecordBatch]) -> Iterator[ScoredBatch]:
        """Score the batches of the partition, and count their rows."""
        job = self.job
        predictor = _load_verified(job.artifact, self.digest, job.policy, job.request.proba)
        before: Counter[str] = Counter()  # rows of each file; Spark does not split a CSV
        for batch in batches:
            *columns, files, extra = batch.columns
            malformed: dict[int, str] = {}
            if job.csv is not None:
                columns = [pc.fill_null(column, "") for column in columns]  # Spark reads nothing as null
                malformed = _undecoded_rows(columns, job.read)
                malformed |= _malformed_rows(extra, len(job.schema), job.csv)
            rows = pa.RecordBatch.from_arrays(columns, job.read)
            locate = functools.partial(_locate, files, before if job.csv else extra)
            scored = score_batch(job, predictor, rows, malformed, locate, self.schema)
            self.total.add(scored.result)
            yield scored
            before.update({each["values"]: each["counts"] for each in pc.value_counts(files).to_pylist()})


def _locate(files: pa.Array, numbers: pa.Array | Mapping[str, int], row: int) -> str:
    """Return the file and the number in it of a row of a batch.

    Parameters
    ----------
    files, numbers
        The file and the number of each row. For a CSV, how many rows of each file came before the batch.
    row
        The row of the batch.
    """
    file = files[row].as_py()
    if isinstance(numbers, pa.Array):
        number = numbers[row].as_py()
    else:
        number = numbers[file] + row - pc.index(files, file).as_py()
    name = re.sub(r"^file:(//)?(?=/)", "", unquote(file))  # as a user writes it
    return f"{name}: row {number}"


def _malformed_rows(lines: pa.Array, width: int, form: CsvFormat) -> dict[int, str]:
    """Return why lines of a CSV are no rows, by row of the batch."""
    values = {
        row: len(split_line(lines[row].as_py(), form)) for row in np.flatnonzero(lines.is_valid()).tolist()
    }
    return {row: f"{count} values, and the header names {width}" for row, count in values.items()}


def _undecoded_rows(columns: list[pa.Array], names: list[str]) -> dict[int, str]:
    """Return which rows have bytes that are not in the encoding of the file."""
    reasons: dict[int, str] = {}
    for name, values in zip(names, columns, strict=True):
        for row in np.flatnonzero(pc.match_substring(values, _UNDECODED)).tolist():
            reason = f"{values[row].as_py()[:60]!r} is not UTF-8 (--encoding names another)"
            reasons.setdefault(row, f"column {name!r}: {reason}")
    return reasons
