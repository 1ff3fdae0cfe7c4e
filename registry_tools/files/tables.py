"""Read DataFrames from CSV, JSON and Parquet files, and write them."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import pandas as pd

from registry_tools.errors import InputError, first_line
from registry_tools.files.addresses import open_filesystem, translate_read_errors, without_secrets
from registry_tools.files.csv_rows import CsvFormat
from registry_tools.files.output_file import output_file

_SUFFIXES = {".csv": "csv", ".json": "json", ".parquet": "parquet", ".pq": "parquet"}


def read_table(
    path: str | Path,
    *,
    text_columns: Collection[str] = (),
    may_be_empty: bool = False,
    literal_columns: Collection[str] = (),
) -> pd.DataFrame:
    """Read a table from a file; the suffix determines the format.

    Parameters
    ----------
    path
        A `.csv`, `.json`, `.parquet` or `.pq` file, or its URL, such as `s3://bucket/rows.csv`.
    text_columns
        Columns of a CSV to read as text, although their values may look like numbers (`007`).
    may_be_empty
        Whether to accept a table without rows.
    literal_columns
        Columns of a CSV in which only an empty cell is missing if they hold text: `NA`, `None` and `null`
        are text there.

    Raises
    ------
    InputError
        If the file does not exist, is empty, or does not have the format of its suffix.
    """
    content, where = io.BytesIO(read_bytes(path)), without_secrets(str(path))
    return parse_table(content, format_of(path), where, text_columns, may_be_empty, literal_columns)


def read_bytes(path: str | Path) -> bytes:
    """Return the content of a file, for `parse_table`.

    Raises
    ------
    InputError
        If the file does not exist or cannot be read.
    """
    address = str(path)
    if "://" in address:
        with translate_read_errors(without_secrets(address)):
            filesystem, inside = open_filesystem(address)
            with filesystem.open_input_file(inside) as stream:
                content: bytes = stream.read()
                return content
    path = Path(path)
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise InputError(f"{path}: the file {what} (looked in {path.absolute().parent})")
    try:
        return path.read_bytes()
    except PermissionError:
        raise InputError(f"{path}: no permission to read it") from None


def read_stream(stream: BinaryIO, *, text_columns: Collection[str] = ()) -> pd.DataFrame:
    """Read a table from a stream such as standard input; its first bytes determine the format.

    Raises
    ------
    InputError
        If the stream is empty or cannot be parsed.
    """
    content = stream.read()
    return parse_table(io.BytesIO(content), _guess_format(content), "standard input", text_columns)


def _guess_format(content: bytes) -> str:
    if content.startswith(b"PAR1"):
        return "parquet"
    return "json" if content.lstrip()[:1] in (b"[", b"{") else "csv"


def parse_table(
    stream: BinaryIO,
    file_format: str,
    where: str,
    text_columns: Collection[str] = (),
    may_be_empty: bool = False,
    literal_columns: Collection[str] = (),
    form: CsvFormat | None = None,
) -> pd.DataFrame:
    """Parse a table of a given format; errors name it by `where`.

    JSON may be a list of objects, a list of lists, or an object of MLflow's scoring protocol with
    `dataframe_split`, `dataframe_records`, `inputs` or `instances`. A named index of Parquet is a
    column. A CSV is UTF-8; `form` gives its separator and its decimal mark.

    Raises
    ------
    InputError
        If the stream is empty or does not have the format.
    """
    form = form or CsvFormat()
    try:
        if file_format == "csv":
            table = _read_csv(stream, text_columns, literal_columns, form)
        elif file_format == "parquet":
            table = pd.read_parquet(stream)
            if named := [name for name in table.index.names if name is not None]:
                table = table.reset_index(named)
        else:
            table = _parse_json(json.load(stream))
    except pd.errors.EmptyDataError:
        raise InputError(f"{where}: it is empty") from None
    except pd.errors.ParserWarning:
        raise InputError(
            f"{where}: some rows have more values than the header has names; is it separated by "
            f"{form.separator!r}, and does each column have a name?"
        ) from None
    # ArrowInvalid, JSONDecodeError, UnicodeDecodeError and ParserError are ValueErrors.
    except (ValueError, TypeError, RecursionError, OSError) as error:
        raise InputError(f"{where}: not readable as {file_format.upper()}: {first_line(error)}") from None
    if not len(table) and not may_be_empty:
        raise InputError(f"{where}: it has no rows")
    for name in set(text_columns) & set(table.columns):
        table[name] = table[name].astype(object).where(table[name].notna(), None)
    return table


def _read_csv(
    stream: BinaryIO, text_columns: Collection[str], literal_columns: Collection[str], form: CsvFormat
) -> pd.DataFrame:
    """Read a CSV in one piece: in parts, pandas could give one column integers, floats and text."""
    options: dict[str, Any] = {
        "dtype": dict.fromkeys(text_columns, "string"), "low_memory": False, "index_col": False,
        "sep": form.separator, "decimal": form.decimal,
    }  # fmt: skip
    with warnings.catch_warnings():
        # By default pandas uses the first value of a row with too many values as its index.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        table = pd.read_csv(stream, **options)
        for name in table.columns.intersection(list(literal_columns)):
            if table[name].isna().any() and _holds_text(table[name]):
                stream.seek(0)
                table[name] = pd.read_csv(stream, **options, keep_default_na=False, na_values=[""])[name]
    return table


def _holds_text(column: pd.Series) -> bool:
    known = column.dropna()
    return known.empty or pd.api.types.infer_dtype(known) == "string"


def _parse_json(content: Any) -> pd.DataFrame:
    if isinstance(content, dict):
        keys = {"dataframe_split", "dataframe_records", "inputs", "instances"} & set(content)
        if len(keys) != 1:
            raise ValueError(
                "expected a list of rows, or an object with exactly one of dataframe_split, "
                "dataframe_records, inputs, instances"
            )
        key = keys.pop()
        content = content[key]
        if key == "dataframe_split":
            if not isinstance(content, dict) or "data" not in content:
                raise ValueError("dataframe_split needs 'columns' and 'data'")
            return pd.DataFrame(content["data"], columns=content.get("columns"))
    is_list = isinstance(content, list) and all(isinstance(row, (dict, list)) for row in content)
    if not is_list and not isinstance(content, dict):
        raise ValueError("expected a list of rows, each an object or a list")
    return pd.DataFrame(content)


def write_table(table: pd.DataFrame, path: str | Path) -> None:
    """Write a table atomically; the suffix determines the format.

    Raises
    ------
    InputError
        If the suffix is unknown, or the file cannot be written.
    """
    file_format = format_of(path)
    with output_file(Path(path)) as part:
        if file_format == "csv":
            table.to_csv(part, index=False)
        elif file_format == "parquet":
            table.to_parquet(part, index=False)
        else:
            table.to_json(part, orient="records", indent=2)


def format_of(path: str | Path) -> str:
    """Return the format for the suffix of a file or URL: csv, json or parquet.

    Raises
    ------
    InputError
        If the suffix is unknown.
    """
    where = without_secrets(str(path))
    suffix = PurePosixPath(where).suffix
    if suffix.lower() not in _SUFFIXES:
        raise InputError(f"{where}: unknown format {suffix!r}; use one of {', '.join(_SUFFIXES)}")
    return _SUFFIXES[suffix.lower()]
