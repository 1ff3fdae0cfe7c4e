"""Writers of tables: Parquet or CSV."""

from __future__ import annotations

import csv
import io
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from registry_tools.batch.readers.input_files import SUFFIXES
from registry_tools.data.output_file import refuse_special_file
from registry_tools.data.temp_files import resolve_link
from registry_tools.errors import InputError

_GROUP_ROWS = 1 << 20  # of a Parquet row group, unless its rows are large
_GROUP_BYTES = 64 << 20
_PLAIN = pa_csv.WriteOptions(include_header=False, quoting_style="none")
_QUOTED = pa_csv.WriteOptions(include_header=False, quoting_style="needed")


class TableWriter(Protocol):
    """Takes rows in order."""

    def write(self, rows: pa.RecordBatch) -> None:
        """Take rows; they may wait."""

    def close(self) -> None:
        """Write what waits."""


def check_target(path: Path) -> None:
    """Refuse a file that cannot come to be, before anything is read.

    Raises
    ------
    InputError
        If the suffix is unknown, the folder is not there or cannot be written to, or something
        stands there that is no file.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: unknown format {path.suffix!r}; use one of {', '.join(SUFFIXES)}")
    refuse_special_file(path)
    folder = resolve_link(path).parent
    if not folder.is_dir():
        raise InputError(f"{path}: cannot be written: there is no folder {folder}")
    if not os.access(folder, os.W_OK):
        raise InputError(f"{path}: cannot be written: no permission to write to {folder}")


def check_columns(path: Path, schema: pa.Schema, where: str) -> None:
    """Refuse columns that the format of a file cannot hold, before anything is read.

    Raises
    ------
    InputError
        If it is a CSV, and one is nested or of another type without text; `where` has the column.
    """
    if SUFFIXES[path.suffix.lower()] != "csv":
        return
    for column in schema:
        row = pa.RecordBatch.from_arrays([pa.nulls(1, column.type)], [column.name])
        try:
            pa_csv.write_csv(row, pa.BufferOutputStream(), _PLAIN)
        except pa.ArrowException:
            raise InputError(
                f"{where}: column {column.name!r} holds {column.type}, and a CSV cannot: drop it, "
                f"or name a .parquet in place of {path}"
            ) from None


def open_writer(partial: Path, path: Path, schema: pa.Schema, like: pq.FileMetaData | None) -> TableWriter:
    """Return a writer in the format of `path` to `partial`; `like` has the compression to keep."""
    if SUFFIXES[path.suffix.lower()] == "parquet":
        return ParquetTableWriter(partial, schema, like)
    return CsvTableWriter(partial, schema)


class ParquetTableWriter:
    """Gathers rows into row groups; a thread encodes one while the next one gathers."""

    def __init__(self, path: Path, schema: pa.Schema, like: pq.FileMetaData | None) -> None:
        self._schema = schema
        self._writer = pq.ParquetWriter(path, schema, **_encoding_options(schema, like))
        self._thread = ThreadPoolExecutor(1, "writer")
        self._encoding: Future[None] | None = None
        self._waiting: list[pa.RecordBatch] = []
        self._rows = self._bytes = 0

    def write(self, rows: pa.RecordBatch) -> None:
        """Take rows."""
        self._waiting.append(rows)
        self._rows += rows.num_rows
        self._bytes += rows.nbytes
        if self._rows >= _GROUP_ROWS or self._bytes >= _GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._encoding is not None:
            self._encoding.result()
        table = pa.Table.from_batches(self._waiting, self._schema)
        self._waiting, self._rows, self._bytes = [], 0, 0
        self._encoding = self._thread.submit(self._writer.write_table, table, _GROUP_ROWS)

    def close(self) -> None:
        """Write the last row group and the footer."""
        try:
            if self._rows:
                self._flush()
            if self._encoding is not None:
                self._encoding.result()
        finally:
            self._thread.shutdown()
            self._writer.close()


def _encoding_options(schema: pa.Schema, like: pq.FileMetaData | None) -> dict[str, Any]:
    """Return how columns are encoded: as in the file that they come from.

    A dictionary of numbers that are all different is made only to be thrown away.
    """
    by_name = {}
    if like is not None and like.num_row_groups:
        group = like.row_group(0)
        for place in range(group.num_columns):
            chunk = group.column(place)
            plain = chunk.num_values * {"DOUBLE": 8, "INT64": 8, "FLOAT": 4, "INT32": 4}.get(
                chunk.physical_type, 0
            )
            by_name[chunk.path_in_schema] = (
                chunk.compression.lower(),
                plain == 0 or chunk.total_uncompressed_size < plain / 2,
            )
    codecs = {name: by_name.get(name, ("snappy", True))[0] for name in schema.names}
    codecs = {n: "none" if codec == "uncompressed" else codec for n, codec in codecs.items()}
    return {
        "compression": codecs if set(codecs.values()) != {"snappy"} else "snappy",
        "use_dictionary": [name for name in schema.names if by_name.get(name, ("", True))[1]],
    }


class CsvTableWriter:
    """Writes rows of text and numbers; quotes where a value of the batch needs it."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._file = path.open("wb")
        header = io.StringIO()
        csv.writer(header, lineterminator="\n").writerow(schema.names)
        self._file.write(header.getvalue().encode())

    def write(self, rows: pa.RecordBatch) -> None:
        """Write rows."""
        plain = pa.BufferOutputStream()
        try:
            pa_csv.write_csv(rows, plain, _PLAIN)
        except pa.ArrowInvalid:  # a comma, a quote or a line end in a value
            plain = pa.BufferOutputStream()
            pa_csv.write_csv(rows, plain, _QUOTED)
        self._file.write(plain.getvalue())

    def close(self) -> None:
        """Close the file."""
        self._file.close()
