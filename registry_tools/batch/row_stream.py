"""What is to be done in one scoring: rows through a version into the output, in order."""

from __future__ import annotations

import contextlib
import csv
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from registry_tools.batch.engines.predictions import counts_of
from registry_tools.batch.engines.process_pool import Engine
from registry_tools.batch.readers.input_files import SUFFIXES, Files
from registry_tools.batch.readers.read_rows import Batch
from registry_tools.batch.validation.columns import arrow_of, arrow_type, check
from registry_tools.batch.writers import table_writers
from registry_tools.batch.writers.table_writers import Sink
from registry_tools.data.schema import Column
from registry_tools.errors import InputError
from registry_tools.inference.model_artifact import ModelArtifact
from registry_tools.refs import ModelRef

REASON = "reason"
Progress = Callable[[int, int], None]  # how much of `Files.total` is done; rows


@dataclass(frozen=True)
class ScoringRequest:
    """What is asked for."""

    ref: ModelRef
    input: str  # a file, a folder of files, or a URL
    output: Path
    rejects: Path | None = None  # where rows go that cannot be scored; None fails on the first
    proba: bool = False
    workers: int | None = None  # None takes all cores
    master: str | None = None  # of Spark, which answers then


@dataclass
class Tally:
    """What has been counted so far."""

    rows: int = 0
    rejected: int = 0
    counts: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Task:
    """Rows through the model into the output."""

    request: ScoringRequest
    files: Files
    columns: tuple[Column, ...]
    artifact: ModelArtifact
    engine: Engine
    added: list[str]  # columns of probabilities

    def run(self, progress: Progress) -> Tally:
        """Score all rows."""
        tally = Tally()
        rejects = self.request.rejects
        with contextlib.ExitStack() as stack:
            # The output comes last: where it stands, all stands.
            target = stack.enter_context(table_writers.whole(self.request.output))
            refused = self._sink(stack, rejects, self.reject_schema()) if rejects else None
            sink: Sink | None = None
            for batch, (answers, bad) in self.engine.answer(self.files.batches()):
                if bad or batch.broken:
                    self._reject(batch, bad, refused)
                    tally.rejected += len(bad) + len(batch.broken)
                rows = self._output(batch, answers, bad)
                if sink is None:
                    sink = self._opened(stack, target, rows.schema)
                sink.write(rows)
                tally.rows += rows.num_rows
                tally.counts.update(counts_of(answers))
                progress(batch.done, tally.rows + tally.rejected)
            if sink is None:
                self._opened(stack, target, self._empty_schema())
        return tally

    def _sink(self, stack: contextlib.ExitStack, path: Path, schema: pa.Schema) -> Sink:
        return self._opened(stack, stack.enter_context(table_writers.whole(path)), schema, path)

    def _opened(
        self,
        stack: contextlib.ExitStack,
        partial: Path,
        schema: pa.Schema,
        path: Path | None = None,
    ) -> Sink:
        form = SUFFIXES[(path or self.request.output).suffix.lower()]
        return stack.enter_context(
            contextlib.closing(table_writers.sink(partial, form, schema, self.files.metadata))
        )

    def _output(self, batch: Batch, answers: pa.RecordBatch, bad: Mapping[int, str]) -> Any:
        """Return the rows that were scored with their answers beside."""
        rows = batch.rows
        if bad:
            good = [place not in bad for place in range(rows.num_rows)]
            rows = rows.filter(pa.array(good))
        arrays = dict(zip(rows.schema.names, rows.columns, strict=True))
        if self._is_typed:
            checked = check(rows, self.columns, text=True)
            arrays |= {c.name: arrow_of(checked, c) for c in self.columns if c.name in arrays}
        arrays["prediction"] = answers.column("prediction")
        arrays["prediction_name"] = answers.column("prediction_name").cast(pa.string())
        arrays["model_version"] = pa.repeat(pa.scalar(self.artifact.version, pa.int32()), len(rows))
        arrays |= {name: answers.column(name) for name in self.added}
        return pa.RecordBatch.from_arrays(
            list(arrays.values()), schema=self.schema(answers.column("prediction").type)
        )

    @property
    def _is_typed(self) -> bool:
        """Whether text becomes what the signature says."""
        return self.files.is_text and SUFFIXES[self.request.output.suffix.lower()] == "parquet"

    def schema(self, prediction: pa.DataType) -> pa.Schema:
        """Return the columns of the output, given the type of what is predicted."""
        types = {column.name: arrow_type(column) for column in self.columns}
        fields = [
            pa.field(f.name, types.get(f.name) or f.type) if self._is_typed else f
            for f in self.files.schema
        ]
        fields += [
            pa.field("prediction", prediction),
            pa.field("prediction_name", pa.string()),
            pa.field("model_version", pa.int32()),
            *(pa.field(name, pa.float64()) for name in self.added),
        ]
        return pa.schema(fields, metadata=self.files.schema.metadata)

    def _empty_schema(self) -> pa.Schema:
        nothing = Batch("", 0, pa.RecordBatch.from_pylist([], schema=self.files.schema), 0)
        ((_, (answers, _)),) = self.engine.answer([nothing])
        return self.schema(answers.column("prediction").type)

    def reject_schema(self) -> pa.Schema:
        """Return the columns of the rejects."""
        return pa.schema([*self.files.schema, pa.field(REASON, pa.string())])

    def _reject(self, batch: Batch, bad: Mapping[int, str], refused: Sink | None) -> None:
        """Write the rows that cannot be scored with the reason, or fail on the first.

        Raises
        ------
        InputError
            If there is no file for them; names file, row, column and value.
        """
        places = sorted(bad)
        said = {batch.row_of(place): bad[place] for place in places}
        said |= {line.row: line.reason for line in batch.broken}
        reasons = [f"{batch.where}: row {row}: {said[row]}" for row in sorted(said)]
        if refused is None:
            raise refusal(reasons[0])
        rows = batch.rows.take(pa.array(places, pa.int64()))
        if batch.broken:
            both = pa.Table.from_batches([rows, _as_rows(batch)])
            rows = both.take(np.argsort(list(said))).combine_chunks().to_batches()[0]
        arrays = [*rows.columns, pa.array(reasons, pa.string())]
        refused.write(pa.RecordBatch.from_arrays(arrays, schema=self.reject_schema()))


def _as_rows(batch: Batch) -> pa.RecordBatch:
    """Return the lines that are no rows, with values that are too many cut off."""
    width = len(batch.rows.schema)
    lines = [[*_values_of(line.text), *[""] * width][:width] for line in batch.broken]
    arrays = [pa.array(values, pa.string()) for values in zip(*lines, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=batch.rows.schema)


def _values_of(text: str) -> list[str]:
    """Split a line of a CSV, whose values may be of any length."""
    before = csv.field_size_limit()
    csv.field_size_limit(max(before, len(text)))
    try:
        return next(csv.reader([text]), [])
    finally:
        csv.field_size_limit(before)


def refusal(reason: str) -> InputError:
    """Return the error that a row ends all in."""
    return InputError(
        f"{reason} (rows count from 0; --on-bad-row reject puts such rows into a file of their own)"
    )
