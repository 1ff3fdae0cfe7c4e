"""The rows and the memory that one request may take, checked before the memory is allocated.

A few bytes can stand for many: a Parquet file repeats a value, pandas fills short rows, and NumPy
stores every text of an array at the length of the longest.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry_tools.errors import InputError, InputTooLarge

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

_MOST_COLUMNS = 10_000  # as of a signature
_MOST_REPEATED = 100  # names: pandas makes each of them another one, and compares it with all
_CELL = 8  # bytes of a number, or of the pointer to a text
_CHARACTER = 4  # bytes of a character in an array of NumPy


@dataclass(frozen=True)
class InputLimits:
    """The limits of one request; None sets no limit."""

    rows: int | None = None
    decoded: int | None = None  # bytes of its values, once they are a table or arrays


def check_row_count(rows: int | None, limits: InputLimits) -> None:
    """Refuse more rows than are allowed; the number is None if the input has none.

    Raises
    ------
    InputError
        If there are more.
    """
    if rows is not None and limits.rows is not None and rows > limits.rows:
        raise InputError(f"{rows} rows in one request, {limits.rows} are allowed: send them in parts")


def check_column_count(columns: int) -> None:
    """Refuse more columns than a signature may have.

    Raises
    ------
    InputError
        If there are more.
    """
    if columns > _MOST_COLUMNS:
        raise InputError(f"{columns} columns in one request, {_MOST_COLUMNS} are allowed")


def check_decoded_size(size: int, limits: InputLimits) -> None:
    """Refuse a request whose values would take more memory than is allowed.

    Parameters
    ----------
    size
        The most bytes that the decoded values take.
    limits
        The limits of the request.

    Raises
    ------
    InputTooLarge
        If they would take more; HTTP status 413.
    """
    if limits.decoded is not None and size > limits.decoded:
        raise InputTooLarge(
            f"the decoded rows take up to {size} bytes, {limits.decoded} are allowed: send them in parts"
        )


def check_json(content: dict[str, Any], limits: InputLimits) -> None:
    """Refuse a JSON request of MLflow's protocol with too many rows, columns or values.

    Raises
    ------
    InputError, InputTooLarge
        If there are more than allowed.
    """
    for key, rows in content.items():
        size = 0
        if key == "dataframe_split" and isinstance(rows, dict):
            parts = map(rows.get, ("data", "index", "columns"))
            data, index, names = (part if isinstance(part, list) else [] for part in parts)
            lengths = [len(row) for row in data if isinstance(row, (list, dict))]
            height, width = max(len(data), len(index)), max(1, len(names), *lengths)
        else:
            columns = _columns(rows)
            # A row that lacks a column is filled: each column has a value for every row.
            height = max([len(rows) if isinstance(rows, list) else 0, *map(len, columns)])
            width, size = len(columns), sum(map(_array_size, columns))
        check_decoded_size(max(size, _CELL * height * width), limits)
        check_row_count(height, limits)
        check_column_count(width)


def _columns(rows: Any) -> list[list[Any]]:
    """Return the values of each column of rows that are objects or columns; otherwise one column."""
    if isinstance(rows, dict):
        # A value that is no list is repeated for every row.
        return [values if isinstance(values, list) else [values] for values in rows.values()]
    if isinstance(rows, list) and any(isinstance(row, dict) for row in rows):
        by_name: dict[Any, list[Any]] = {}
        for row in rows:
            for name, value in row.items() if isinstance(row, dict) else ():
                by_name.setdefault(name, []).append(value)
        return list(by_name.values())
    return [rows if isinstance(rows, list) else [rows]]


def _array_size(values: list[Any]) -> int:
    """Return the most bytes of an array of nested lists: its values, each as wide as the widest."""
    count = longest = 0
    waiting: list[Any] = [values]
    while waiting:
        value = waiting.pop()
        inner = value.values() if isinstance(value, dict) else value
        kinds = set(map(type, inner))
        nested = [each for each in inner if isinstance(each, (list, dict))] if kinds & {list, dict} else []
        waiting += nested
        count += len(inner) - len(nested)
        if str in kinds:
            longest = max(longest, *(len(text) for text in inner if isinstance(text, str)))
    return count * max(_CELL, _CHARACTER * longest)


def check_csv(text: str, limits: InputLimits) -> None:
    """Refuse a CSV with too many columns or values.

    Raises
    ------
    InputError, InputTooLarge
        If there are more than allowed, or its first lines are no CSV.
    """
    lines = text.count("\n") + text.count("\r") - text.count("\r\n") + 1
    try:
        # pandas fills short lines up to the header, or to a longer first line below it.
        first = list(itertools.islice(filter(None, csv.reader(io.StringIO(text, newline=""))), 2))
    except csv.Error:
        raise InputError("the first lines of the CSV are no header and values") from None
    header = first[0] if first else []
    check_column_count(max(map(len, first), default=0))
    if len(header) - len(set(header)) > _MOST_REPEATED:
        raise InputError(f"more than {_MOST_REPEATED} names of columns are repeated: send each column once")
    check_decoded_size(_CELL * lines * max(map(len, first), default=0), limits)


def read_parquet(body: bytes, names: Sequence[str] | None, limits: InputLimits) -> pd.DataFrame:
    """Read the columns of a signature from a Parquet file, as pandas does.

    Parameters
    ----------
    body
        The file.
    names
        The columns to read if they are there; None reads all.
    limits
        The limits that its metadata and texts must meet before they are decoded.

    Raises
    ------
    InputError, InputTooLarge
        If it has more rows, or takes more memory, than is allowed.
    pyarrow.ArrowException, OSError
        If it is no Parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = pa.BufferReader(body)
    file = pq.ParquetFile(source)
    check_row_count(file.metadata.num_rows, limits)
    schema = file.schema_arrow
    if names is None:
        read = set(schema.names)
    else:
        indexes = (schema.pandas_metadata or {}).get("index_columns", [])
        read = {*names, *(name for name in indexes if isinstance(name, str))}.intersection(schema.names)
    size = _size_by_metadata(file.metadata, read)
    check_decoded_size(size, limits)
    # A text that is repeated is stored once until its copies are counted.
    text_types = {pa.string(), pa.large_string(), pa.binary(), pa.large_binary()}
    texts = [name for name in schema.names if name in read and schema.field(name).type in text_types]
    file = pq.ParquetFile(source, metadata=file.metadata, read_dictionary=texts)
    table = file.read([name for name in schema.names if name in read], use_pandas_metadata=True)
    check_decoded_size(size + sum(_text_size(table.column(name)) for name in texts), limits)
    target = pa.schema([schema.field(name) for name in table.column_names], schema.metadata)
    return table.cast(target).to_pandas()


def _size_by_metadata(metadata: pq.FileMetaData, read: set[str]) -> int:
    """Return the bytes of the columns to read; of texts only as they are stored."""
    parents = {name.partition(".")[0] for name in read}
    size = 0
    for leaf in range(metadata.num_columns):
        column = metadata.schema.column(leaf)
        is_nested = column.path not in read
        if is_nested and ("." not in column.path or column.path.partition(".")[0] not in parents):
            continue
        chunks = [metadata.row_group(group).column(leaf) for group in range(metadata.num_row_groups)]
        stored = sum(chunk.total_uncompressed_size for chunk in chunks)
        # How often a list repeats a text is unknown: count each as long as all of them.
        widest = stored if is_nested and column.physical_type == "BYTE_ARRAY" else column.length
        size += stored + sum(chunk.num_values for chunk in chunks) * max(_CELL, widest)
    return size


def _text_size(column: pa.ChunkedArray) -> int:
    import pyarrow.compute as pc

    lengths = (pc.take(pc.binary_length(chunk.dictionary), chunk.indices) for chunk in column.chunks)
    return sum(pc.sum(each).as_py() or 0 for each in lengths)
