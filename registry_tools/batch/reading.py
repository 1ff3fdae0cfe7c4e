"""Rows of one input file in batches, in their order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

BATCH_ROWS = 1 << 16
BLOCK_BYTES = 4 << 20  # bytes of a CSV that are read at once
READ_BYTES = 1 << 20  # bytes of a Parquet column that are read at once


@dataclass(frozen=True)
class Broken:
    """A line of a CSV that is no row."""

    row: int  # of its file, from 0
    text: str
    reason: str


@dataclass(frozen=True)
class Batch:
    """Rows of one file."""

    where: str  # the file, for errors
    first: int  # its first row in the file, from 0
    rows: pa.RecordBatch
    done: int  # rows of Parquet, bytes of CSV that were read by now, over all files
    broken: tuple[Broken, ...] = ()  # lines that stood before or among them
    skips: tuple[int, ...] = ()  # the rows of the file that those are

    def row_of(self, place: int) -> int:
        """Return which row of the file stands at a place of the batch."""
        row = self.first + place
        for skipped in self.skips:
            row += skipped <= row
        return row


def read_parquet(
    source: pa.NativeFile, shown: str, schema: pa.Schema, size: int
) -> Iterator[Batch]:
    """Read all rows, with their columns in the order of a schema."""
    parquet = pq.ParquetFile(source, buffer_size=READ_BYTES, pre_buffer=False)
    done = 0
    for rows in parquet.iter_batches(size):
        if rows.schema.names != schema.names:
            rows = rows.select(schema.names)
        yield Batch(shown, done, rows, done + rows.num_rows)
        done += rows.num_rows


def read_csv(
    source: pa.NativeFile, shown: str, schema: pa.Schema, size: int, keep_broken: bool
) -> Iterator[Batch]:
    """Read all rows as text, with their columns in the order of a schema."""
    broken: list[Broken] = []

    def keep(row: pa_csv.InvalidRow) -> str:
        reason = f"{row.actual_columns} values, and the header names {row.expected_columns}"
        broken.append(Broken(row.number - 2, row.text, reason))  # its numbers count the header
        return "skip"

    names = schema.names
    reader = pa_csv.open_csv(
        source,
        # In one thread, or nothing could be said of where a row stands.
        read_options=pa_csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES),
        parse_options=pa_csv.ParseOptions(
            newlines_in_values=True, invalid_row_handler=keep if keep_broken else None
        ),
        convert_options=pa_csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
        ),
    )
    first, told, done = 0, 0, 0
    with reader:
        for block in reader:
            if block.schema.names != names:
                block = block.select(names)
            done = source.tell()
            for start in range(0, block.num_rows, size):
                rows = block.slice(start, size)
                yield Batch(shown, first, rows, done, tuple(broken[told:]), _rows(broken))
                first, told = first + rows.num_rows, len(broken)
    if told < len(broken):
        nothing = pa.RecordBatch.from_pylist([], schema=schema)
        yield Batch(shown, first, nothing, done, tuple(broken[told:]), _rows(broken))


def _rows(broken: Sequence[Broken]) -> tuple[int, ...]:
    return tuple(one.row for one in broken)


def columns_of(rows: pa.RecordBatch, names: Sequence[str]) -> pa.RecordBatch:
    """Return the columns of these names that are there."""
    there = set(rows.schema.names)
    found: list[Any] = [name for name in names if name in there]
    return rows.select(found)
