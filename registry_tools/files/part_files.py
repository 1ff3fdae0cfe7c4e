"""How scored rows are written: as parts, by several processes, which are put into one file."""

from __future__ import annotations

import csv
import io
import itertools
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from registry_tools.errors import InputError

# The formats of parts. Those of a Parquet file are in Arrow's stream format, which is cheap to read once;
# those of a folder are its files.
CSV, PARQUET, ARROW = "csv", "parquet", "arrow"
FORMATS = {".csv": CSV, ".parquet": ARROW, ".pq": ARROW}
_GROUP_ROWS = 1 << 20  # of a Parquet row group, unless its rows are large
_GROUP_BYTES = 64 << 20
_PLAIN, _QUOTED = (pa_csv.WriteOptions(include_header=False, quoting_style=q) for q in ("none", "needed"))
_CODECS = {"uncompressed": "none", "lz4_raw": "lz4"}


def check_csv_columns(path: str, columns: Iterable[pa.Field], where: str) -> None:
    """Refuse columns that a CSV cannot hold: nested ones, and types without text.

    Raises
    ------
    InputError
        If `where` has such a column.
    """
    for column in columns:
        try:
            _csv_of(pa.RecordBatch.from_arrays([pa.nulls(1, column.type)], [column.name]))
        except pa.ArrowException:
            raise InputError(
                f"{where}: column {column.name!r} holds {column.type}, and a CSV cannot: leave it out with "
                f"--keep, or name a .parquet in place of {path}"
            ) from None


def parquet_options(schema: pa.Schema, kept: int, like: pq.FileMetaData | None) -> dict[str, Any]:
    """Return how Parquet is encoded: the kept columns as in the input, added ones as cheaply as possible.

    A dictionary of numbers that are all different is made only to be thrown away, and statistics
    of predictions help no reader to skip rows.
    """
    codec, dictionary, paths = "snappy", schema.names[:kept], schema.names[:kept]
    if like is not None and like.num_row_groups and like.num_columns:
        chunks = [like.row_group(0).column(place) for place in range(like.num_columns)]
        codec, paths = chunks[0].compression.lower(), [chunk.path_in_schema for chunk in chunks]
        # Numbers take 4 or 8 bytes each without a dictionary, or with one that does not pay.
        dictionary = [
            chunk.path_in_schema
            for chunk in chunks
            if chunk.physical_type == "BYTE_ARRAY" or chunk.total_uncompressed_size < 4 * chunk.num_values
        ]
    names = [f.name for f in list(schema)[kept:] if not pa.types.is_primitive(f.type)]
    codec = _CODECS.get(codec, codec)
    return {"compression": codec, "use_dictionary": dictionary + names, "write_statistics": paths}


def write_part(path: Path, form: str, batches: Iterator[pa.RecordBatch], options: dict[str, Any]) -> None:
    """Write rows as they come; if there are none, no file. A part of a CSV has no header."""
    first = next(batches, None)
    if first is None:
        return
    batches = itertools.chain([first], batches)
    if form == CSV:
        with path.open("wb") as file:
            file.writelines(map(_csv_of, batches))
    elif form == ARROW:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, first.schema) as stream:
            for rows in batches:
                stream.write(rows)
    else:
        _write_parquet(path, first.schema, batches, options)


def assemble(path: Path, form: str, parts: Iterable[Path], empty: pa.Schema, options: dict[str, Any]) -> None:
    """Put parts into one file and delete them; without any it has the columns of `empty`."""
    if form == CSV:
        with path.open("wb") as file:
            header = io.StringIO()
            csv.writer(header, lineterminator="\n").writerow(empty.names)
            file.write(header.getvalue().encode())
            for part in parts:
                with part.open("rb") as source:
                    shutil.copyfileobj(source, file, 1 << 20)
                part.unlink()
    else:
        batches = itertools.chain.from_iterable(map(read_arrow, parts))
        first = next(batches, pa.RecordBatch.from_pylist([], empty))
        _write_parquet(path, first.schema, itertools.chain([first], batches), options)


def read_arrow(path: Path) -> Iterator[pa.RecordBatch]:
    """Read a part in Arrow's stream format, and delete it."""
    with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as stream:
        yield from stream
    path.unlink()


def _write_parquet(
    path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch], options: dict[str, Any]
) -> None:
    with pq.ParquetWriter(path, schema, **options) as writer:
        group: list[pa.RecordBatch] = []
        rows = size = 0
        for batch in itertools.chain(batches, [None]):
            if batch is not None:
                group.append(batch)
                rows, size = rows + batch.num_rows, size + batch.nbytes
            if rows >= _GROUP_ROWS or size >= _GROUP_BYTES or (rows and batch is None):
                writer.write_table(pa.Table.from_batches(group, schema), rows)
                group, rows, size = [], 0, 0


def _csv_of(rows: pa.RecordBatch) -> pa.Buffer:
    """Return rows as CSV without a header; quoted where a value of the batch needs it."""
    text = pa.BufferOutputStream()
    try:
        pa_csv.write_csv(rows, text, _PLAIN)
    except pa.ArrowInvalid:  # a comma, a quote or a line end in a value
        text = pa.BufferOutputStream()
        pa_csv.write_csv(rows, text, _QUOTED)
    return text.getvalue()
