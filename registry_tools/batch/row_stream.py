"""Rows through the command: read in batches, predicted by an engine, written in their order."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from registry_tools.batch.predictions import class_counts
from registry_tools.batch.readers.read_rows import Batch
from registry_tools.batch.scoring_plan import Progress, RowCounts, ScoringPlan, bad_row_error
from registry_tools.batch.writers.table_writers import TableWriter, open_writer
from registry_tools.data.arrow_coercion import coerce_batch, to_arrow
from registry_tools.data.output_file import output_file


@dataclass(frozen=True)
class RowStream:
    """The rows of a plan."""

    plan: ScoringPlan

    def run(self, progress: Progress) -> RowCounts:
        """Score all rows."""
        plan, total = self.plan, RowCounts()
        rejects = plan.request.rejects
        with contextlib.ExitStack() as stack:
            # The output comes last: where it stands, all stands.
            output = stack.enter_context(output_file(plan.request.output))
            reject_writer: TableWriter | None = None
            if rejects is not None:
                partial = stack.enter_context(output_file(rejects))
                reject_writer = self._open(stack, partial, rejects, plan.reject_schema)
            writer: TableWriter | None = None
            for batch, (predictions, bad) in plan.engine.predict(plan.files.batches()):
                if bad or batch.malformed:
                    self._reject(batch, bad, reject_writer)
                    total.rejected += len(bad) + len(batch.malformed)
                rows = self._with_predictions(batch, predictions, bad)
                if writer is None:
                    writer = self._open(stack, output, plan.request.output, rows.schema)
                writer.write(rows)
                total.rows += rows.num_rows
                total.counts.update(class_counts(predictions))
                progress(batch.done, total.rows + total.rejected)
            if writer is None:
                self._open(stack, output, plan.request.output, self._empty_schema())
        return total

    def _open(self, stack: contextlib.ExitStack, partial: Path, path: Path, schema: pa.Schema) -> TableWriter:
        writer = open_writer(partial, path, schema, self.plan.files.metadata)
        return stack.enter_context(contextlib.closing(writer))

    def _with_predictions(
        self, batch: Batch, predictions: pa.RecordBatch, bad: Mapping[int, str]
    ) -> pa.RecordBatch:
        """Return the rows that were scored with the columns of their predictions."""
        plan, rows = self.plan, batch.rows
        if bad:
            rows = rows.filter(pa.array([row not in bad for row in range(rows.num_rows)]))
        arrays = dict(zip(rows.schema.names, rows.columns, strict=True))
        if plan.converts_text:
            coerced = coerce_batch(rows, plan.columns, text=True)
            arrays |= {c.name: to_arrow(coerced, c) for c in plan.columns if c.name in arrays}
        arrays["prediction"] = predictions.column("prediction")
        arrays["prediction_name"] = predictions.column("prediction_name").cast(pa.string())
        arrays["model_version"] = pa.repeat(pa.scalar(plan.artifact.version, pa.int32()), len(rows))
        arrays |= {name: predictions.column(name) for name in plan.added}
        schema = plan.output_schema(predictions.column("prediction").type)
        return pa.RecordBatch.from_arrays(list(arrays.values()), schema=schema)

    def _empty_schema(self) -> pa.Schema:
        files = self.plan.files
        nothing = Batch("", 0, pa.RecordBatch.from_pylist([], schema=files.schema), 0)
        ((_, (predictions, _)),) = self.plan.engine.predict([nothing])
        return self.plan.output_schema(predictions.column("prediction").type)

    def _reject(self, batch: Batch, bad: Mapping[int, str], writer: TableWriter | None) -> None:
        """Write the rows that cannot be scored with the reason, or fail on the first.

        Raises
        ------
        InputError
            If there is no file for them; names file, row, column and value.
        """
        places = sorted(bad)
        by_row = {batch.row_in_file(place): bad[place] for place in places}
        by_row |= {line.row: line.reason for line in batch.malformed}
        reasons = [f"{batch.file}: row {row}: {by_row[row]}" for row in sorted(by_row)]
        if writer is None:
            raise bad_row_error(reasons[0])
        rows = batch.rows.take(pa.array(places, pa.int64()))
        if batch.malformed:
            both = pa.Table.from_batches([rows, _malformed_rows(batch)])
            rows = both.take(np.argsort(list(by_row))).combine_chunks().to_batches()[0]
        arrays: list[Any] = [*rows.columns, pa.array(reasons, pa.string())]
        writer.write(pa.RecordBatch.from_arrays(arrays, schema=self.plan.reject_schema))


def _malformed_rows(batch: Batch) -> pa.RecordBatch:
    """Return the malformed lines as rows, with values that are too many cut off."""
    width = len(batch.rows.schema)
    lines = [[*_split_line(line.text), *[""] * width][:width] for line in batch.malformed]
    arrays = [pa.array(values, pa.string()) for values in zip(*lines, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=batch.rows.schema)


def _split_line(text: str) -> list[str]:
    """Split a line of a CSV, whose values may be of any length."""
    before = csv.field_size_limit()
    csv.field_size_limit(max(before, len(text)))
    try:
        return next(csv.reader([text]), [])
    finally:
        csv.field_size_limit(before)
