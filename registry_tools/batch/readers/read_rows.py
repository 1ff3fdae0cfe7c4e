"""Rows of one input file in batches, in their order."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from pyarrow import fs

from registry_tools.errors import InputError

BATCH_ROWS = 1 << 16
BLOCK_BYTES = 4 << 20  # bytes of a CSV that are read at once
READ_BYTES = 1 << 20  # bytes of a Parquet column that are read at once
_NO_HEADER = "Empty CSV"  # in what Arrow says then
_HEADER_BYTES = 1 << 16  # bytes of a CSV that are read for the header alone


@dataclass(frozen=True)
class MalformedLine:
    """A line of a CSV that is no row."""

    row: int  # of its file, from 0
    text: str
    reason: str


@dataclass(frozen=True)
class Batch:
    """Rows of one file."""

    file: str  # as errors name it
    first_row: int  # the row of the file that it begins with, from 0
    rows: pa.RecordBatch
    done: int  # rows of Parquet, bytes of CSV that were read by now, over all files
    malformed: tuple[MalformedLine, ...] = ()  # lines that stand among its rows

    def row_in_file(self, place: int) -> int:
        """Return which row of the file stands at a place of the batch."""
        return self.first_row + place + bisect_right(self._rows_before, place)

    @cached_property
    def _rows_before(self) -> list[int]:
        """How many rows of the batch stand before each line that is none."""
        return [line.row - self.first_row - before for before, line in enumerate(self.malformed)]


def read_parquet(source: pa.NativeFile, where: str, schema: pa.Schema, size: int) -> Iterator[Batch]:
    """Read all rows, with their columns in the order of a schema."""
    parquet = pq.ParquetFile(source, buffer_size=READ_BYTES, pre_buffer=False)
    done = 0
    for rows in parquet.iter_batches(size):
        if rows.schema.names != schema.names:
            rows = rows.select(schema.names)
        yield Batch(where, done, rows, done + rows.num_rows)
        done += rows.num_rows


def read_header(filesystem: fs.FileSystem, path: str, where: str) -> pa.Schema:
    """Return the columns that a CSV names; all are text.

    Raises
    ------
    InputError
        If it names none, or a block ends before they do.
    """
    for size in (_HEADER_BYTES, BLOCK_BYTES):
        with filesystem.open_input_stream(path, compression=None) as stream:
            names = _read_names(stream, size)
        if names is not None:
            break
    else:
        with filesystem.open_input_stream(path, compression=None) as stream:
            content = stream.read(BLOCK_BYTES)
        if not content.removeprefix(b"\xef\xbb\xbf").strip():
            raise InputError(f"{where}: it is empty, without even a header")
        # A header may be all that there is, without the end of its line.
        names = _read_names(pa.BufferReader(content + b"\n"), BLOCK_BYTES + 1)
        if names is None or len(content) == BLOCK_BYTES:
            raise InputError(
                f"{where}: its header does not end within {BLOCK_BYTES:,} bytes: is it a CSV, and "
                "is each quote closed?"
            )
    return pa.schema([(name, pa.string()) for name in names])


def _read_names(stream: pa.NativeFile, size: int) -> list[str] | None:
    """Return the names in the header; None if it does not end within so many bytes."""
    try:
        with pa_csv.open_csv(
            stream,
            parse_options=pa_csv.ParseOptions(
                newlines_in_values=True, invalid_row_handler=lambda row: "skip"
            ),
            read_options=pa_csv.ReadOptions(block_size=size),
        ) as reader:
            return reader.schema.names
    except pa.ArrowInvalid as error:
        if _NO_HEADER in str(error):
            return None
        raise


def read_csv(source: pa.NativeFile, where: str, schema: pa.Schema, size: int) -> Iterator[Batch]:
    """Read all rows as text, with their columns in the order of a schema."""
    malformed: list[MalformedLine] = []  # that were read, and stand in no batch yet

    def collect(row: pa_csv.InvalidRow) -> str:
        reason = f"{row.actual_columns} values, and the header names {row.expected_columns}"
        malformed.append(MalformedLine(row.number - 2, row.text, reason))  # its numbers count the header
        return "skip"

    names = schema.names
    first = done = 0
    for block in _read_blocks(source, names, collect):
        done = source.tell()
        for start in range(0, max(block.num_rows, 1), size):
            rows = block.slice(start, size)
            among = _take_lines(malformed, first + rows.num_rows)
            yield Batch(where, first, rows, done, among)
            first += rows.num_rows + len(among)
    if malformed:
        nothing = pa.RecordBatch.from_pylist([], schema=schema)
        yield Batch(where, first, nothing, done, tuple(malformed))


def _read_blocks(
    source: pa.NativeFile, names: list[str], collect: Callable[[pa_csv.InvalidRow], str]
) -> Iterator[pa.RecordBatch]:
    try:
        reader = pa_csv.open_csv(
            source,
            # In one thread, or nothing could be said of where a row stands.
            read_options=pa_csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES),
            parse_options=pa_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=collect),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid as error:
        if _NO_HEADER in str(error):  # it is all that there is, without the end of its line
            return
        raise
    with reader:
        for block in reader:
            yield block if block.schema.names == names else block.select(names)


def _take_lines(malformed: list[MalformedLine], end: int) -> tuple[MalformedLine, ...]:
    """Take out the lines that stand before the row that would be `end` without them."""
    count = 0
    while count < len(malformed) and malformed[count].row <= end + count:
        count += 1
    among = tuple(malformed[:count])
    del malformed[:count]
    return among
