"""Read a whole table from a file, a folder of files, a URL, or a SQL query, with its digest."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import textwrap
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from registry_tools.data.row_hash import hash_rows
from registry_tools.errors import InputError
from registry_tools.files import csv_rows, input_files, sql_query
from registry_tools.files.addresses import translate_read_errors, without_secrets
from registry_tools.files.csv_rows import CsvFormat
from registry_tools.files.tables import parse_table

_log = logging.getLogger(__name__)
_SEPARATORS = ";\t|,"  # that a message suggests


@dataclass(frozen=True)
class TableSource:
    """Where a table is, and how to read it."""

    address: str  # a path, a URL, or `sql:` and a query
    csv: CsvFormat = field(default_factory=CsvFormat)
    connection: str | None = None  # of a query: the environment variable with the URL of the database

    @property
    def query(self) -> str | None:
        """The SQL query; None for files."""
        is_query = self.address.startswith(sql_query.PREFIX)
        return self.address.removeprefix(sql_query.PREFIX).strip() if is_query else None

    @property
    def is_csv(self) -> bool:
        """Whether it is, or may be, CSV: neither a query nor a Parquet file."""
        return self.query is None and not self.label.lower().endswith(input_files.PARQUET_ENDINGS)

    @property
    def name(self) -> str:
        """A short name: that of the file or folder, without the suffix and the options of a URL."""
        if self.query is not None:
            return "query"
        path = Path(self.label)
        return path.name.partition(".csv")[0] if self.is_csv else path.stem

    @property
    def label(self) -> str:
        """The address as messages name it: on one line, and without a key."""
        if self.query is not None:
            return sql_query.PREFIX + textwrap.shorten(self.query, 60, placeholder=" …")
        return without_secrets(self.address)


@dataclass(frozen=True)
class _Part:
    """The content of one file."""

    name: str  # as errors name it
    content: bytes  # of a CSV: decompressed, in UTF-8
    schema: pa.Schema


def read_columns(source: TableSource) -> list[str]:
    """Return the names of the columns of a table; of files, only headers are read.

    Raises
    ------
    InputError
        If the table cannot be read.
    UnsupportedOperation
        If the URL needs a package that is not installed.
    """
    if source.query is not None:
        with _naming(source):
            return sql_query.query_columns(source.query, str(source.connection))
    schema = input_files.open_files(source.address, source.csv).schema
    # The metadata of pandas says which columns are its index.
    empty = schema.empty_table().to_pandas()
    return [str(name) for name in (*empty.index.names, *empty.columns) if name is not None]


def read_source(
    source: TableSource, *, text_columns: Collection[str] = (), literal_columns: Collection[str] = ()
) -> tuple[pd.DataFrame, str]:
    """Read a table; return it with a SHA-256 in hex.

    The digest is that of the file (compressed or in another encoding: of its text in UTF-8); for a
    folder, of the names and digests of its files in order; for a query, of the columns and rows.

    Parameters
    ----------
    source
        Where the table is.
    text_columns
        Columns of a CSV to read as text, although their values may look like numbers (`007`).
    literal_columns
        Columns of a CSV in which only an empty cell is missing if they hold text.

    Raises
    ------
    InputError
        If the table cannot be read or has no rows, or files of a folder differ in their columns.
    UnsupportedOperation
        If the URL needs a package that is not installed.
    """
    if source.query is not None:
        with _naming(source):
            table = sql_query.read_query(source.query, str(source.connection))
        columns = json.dumps([[name, str(table[name].dtype)] for name in table.columns])
        return table, hashlib.sha256(columns.encode() + hash_rows(table).tobytes()).hexdigest()
    found = input_files.find_files(source.address)
    if found.is_parquet:
        source.csv.refuse_for_parquet(source.label)
    parts: list[_Part] = []
    for path, name in found.files:
        parts.append(_read_part(found, path, name, source.csv))
        input_files.check_columns(parts[-1].schema, name, parts[0].schema, parts[0].name)
    digests = [hashlib.sha256(part.content).hexdigest() for part in parts]
    if found.is_file:
        digest = digests[0]
    else:
        names = [path.removeprefix(found.path).lstrip("/") for path, _ in found.files]
        digest = hashlib.sha256(json.dumps([names, digests]).encode()).hexdigest()
    if found.is_parquet:
        tables = [parse_table(io.BytesIO(p.content), "parquet", p.name, may_be_empty=True) for p in parts]
    else:
        tables = _parse_csv(parts, source.csv, set(text_columns), literal_columns)
    # An empty part has no types.
    tables = [table for table in tables if len(table)]
    if not tables:
        raise InputError(f"{source.label}: it has no rows")
    table = tables[0] if len(tables) == 1 else pd.concat(tables, ignore_index=True)
    if not found.is_parquet and source.csv.decimal == ".":
        _warn_of_decimal_commas(table)
    return table, digest


@contextlib.contextmanager
def _naming(source: TableSource) -> Iterator[None]:
    """Begin the messages of a query with it."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{source.label}: {error}") from None


def _read_part(found: input_files.FoundFiles, path: str, name: str, form: CsvFormat) -> _Part:
    with translate_read_errors(name):
        with found.filesystem.open_input_file(path) as stream:
            content = stream.read()
        if found.is_parquet:
            return _Part(name, content, pq.read_schema(pa.BufferReader(content)))
        try:
            schema = csv_rows.read_header(pa.BufferReader(content), path, name, form)
            text = csv_rows.text_of(pa.BufferReader(content), path, form).read()
            text.decode()
        except UnicodeDecodeError as error:
            raise InputError(
                f"{name}: it is not {form.encoding} text ({error.reason} at byte {error.start}): name its "
                "encoding, such as cp1252"
            ) from None
    if len(schema) == 1:
        (header,) = schema.names
        if (other := next((mark for mark in _SEPARATORS if mark in header), None)) is not None:
            mark = other.replace("\t", r"\t")
            raise InputError(f"{name}: it has the one column {header!r}: set separator='{mark}'")
    return _Part(name, text, schema)


def _parse_csv(
    parts: list[_Part], form: CsvFormat, text_columns: set[str], literal_columns: Collection[str]
) -> list[pd.DataFrame]:
    """Parse the files of a table; a column with text in one of them is text in all."""

    def parse(literal: Collection[str]) -> list[pd.DataFrame]:
        how = {"may_be_empty": True, "literal_columns": literal, "form": form}
        return [
            parse_table(io.BytesIO(part.content), "csv", part.name, text_columns, **how)  # type: ignore[arg-type]
            for part in parts
        ]

    if len(parts) == 1:
        return parse(literal_columns)
    tables = parse(())
    kinds = {
        name: {_kind_of(table[name]) for table in tables if table[name].notna().any()}
        for name in tables[0].columns
    }
    differ = {name for name, found in kinds.items() if len(found) > 1}
    # A file without any value of a column of numbers does not make it text.
    literal = [
        name for name in kinds if name in literal_columns and (len(kinds[name]) != 1 or "O" in kinds[name])
    ]
    if differ or literal:
        text_columns |= differ
        tables = parse(literal)
    return tables


def _kind_of(column: pd.Series) -> str:
    kind = column.dropna().infer_objects().dtype.kind
    return "number" if kind in "iuf" else kind


def _warn_of_decimal_commas(table: pd.DataFrame) -> None:
    for name, column in table.items():
        if column.dtype.kind not in "iufb" and column.notna().any():
            known = column.dropna()
            if known.astype(str).str.fullmatch(r"[+-]?\d+,\d+").all():
                _log.warning(
                    "column %r is text such as %r: set decimal=, (a comma) if these are numbers",
                    name, known.iloc[0],
                )  # fmt: skip
