"""What is wrong with a request, in one line that names columns and rows, and never a value."""

from __future__ import annotations

import csv
import difflib
from collections import Counter
from collections.abc import Sequence
from typing import Any

from registry_tools.data.schema import NUMBERS, Column, quoted_names, reads_as_number
from registry_tools.errors import InputError
from registry_tools.inference.decoder import csv_header

FORMATS = ("dataframe_split", "dataframe_records", "instances", "inputs")
_ONE_OF = f"exactly one of {', '.join(FORMATS)}"


def refuse_misspelled_columns(content: Any, content_type: str, columns: Sequence[Column] | None) -> None:
    """Refuse a request whose optional column seems misspelt: MLflow would take it for missing.

    Raises
    ------
    InputError
        If an optional column is missing and one stands there that is spelt almost like it.
    """
    if columns is None:
        return
    names = _names(content, content_type)
    if names is None:
        return
    optional = [c.name for c in columns if not c.required and c.name not in names]
    for missing, meant in _close_matches(optional, names, columns):
        raise InputError(f"column {meant!r} is unknown: is it the optional column {missing!r}?")


def explain_refusal(content: Any, content_type: str, columns: Sequence[Column] | None) -> str:
    """Return why MLflow refused a request."""
    if content_type == "application/json":
        shape = _explain_shape(content)
        if shape is not None:
            return shape
    names = _names(content, content_type)
    if columns is not None:
        wrong = _explain_columns(names, columns) if names is not None else _explain_unnamed(content, columns)
        if wrong is not None:
            return wrong + ("; the first line is the header" if content_type == "text/csv" else "")
        if names is not None and content_type == "text/csv":
            wrong = _explain_cells(content, columns)
            if wrong is not None:
                return wrong
    if content_type == "application/json":
        try:
            from registry_tools.data.coercion import coerce

            rows = _rows(content)
            frame = coerce(rows, columns) if rows is not None else None
        except InputError as error:
            return error.public
        except (ValueError, TypeError):
            return "the rows are no table: are they all of one length?"
        if frame is not None:
            missing = [str(name) for name in frame.columns if frame[name].isna().any()]
            if missing:
                return f"missing values in {quoted_names(missing)}, which this model cannot take"
    return f"the model cannot read this {content_type} body as a table of its columns"


def _explain_shape(content: Any) -> str | None:
    if not isinstance(content, dict):
        return f"the body is no JSON object: it needs {_ONE_OF}"
    keys = [key for key in FORMATS if key in content]
    if len(keys) != 1:
        found = f"; it has {quoted_names(keys)}" if keys else ""
        return f"the body needs {_ONE_OF}{found}"
    rows = content[keys[0]]
    if keys[0] == "dataframe_split":
        if not isinstance(rows, dict) or "data" not in rows:
            return "dataframe_split needs an object with 'data' and 'columns'"
        if not isinstance(rows["data"], list):
            return "dataframe_split: 'data' is no list of rows"
    elif keys[0] == "dataframe_records" and not isinstance(rows, list):
        return "dataframe_records is no list of objects"
    return None


def _names(content: Any, content_type: str) -> list[str] | None:
    """Return the columns that a request has; None if they are unknown."""
    if content_type == "text/csv":
        return csv_header(bytes(content).split(b"\n", 1)[0].strip(b"\r"))
    if not isinstance(content, dict):
        return None
    split = content.get("dataframe_split")
    if isinstance(split, dict):
        names = split.get("columns")
        if names is None:
            return []
        return [str(name) for name in names] if isinstance(names, list) else None
    for key in FORMATS[1:]:
        rows = content.get(key)
        if isinstance(rows, dict):
            return [str(name) for name in rows]
        if isinstance(rows, list) and rows and isinstance(rows[0], dict):
            return [str(name) for name in rows[0]]
    return None


def _explain_unnamed(content: Any, columns: Sequence[Column]) -> str | None:
    if not isinstance(content, dict):
        return None
    if not any(isinstance(content.get(key), list) for key in FORMATS[1:]):
        return None
    named = quoted_names(column.name for column in columns[:2])
    return f"the rows name no columns: send objects with {named}, …, or dataframe_split"


def _explain_cells(content: bytes, columns: Sequence[Column]) -> str | None:
    numbers = {column.name for column in columns if column.type in NUMBERS}
    try:
        for number, row in enumerate(csv.DictReader(content.decode("utf-8").splitlines())):
            for name in numbers & row.keys():
                if row[name] and not reads_as_number(row[name]):
                    return f"column {name!r}, row {number}: not a number"
    except (UnicodeDecodeError, csv.Error):
        return None
    return None


def _explain_columns(names: list[str], columns: Sequence[Column]) -> str | None:
    counts = Counter(names)
    doubled = [column.name for column in columns if counts[column.name] > 1]
    if doubled:
        return f"column {doubled[0]!r} occurs twice in the rows"
    missing = [c.name for c in columns if c.required and c.name not in names]
    if not missing:
        return None
    for wanted, meant in _close_matches(missing, names, columns):
        return f"missing column {wanted!r}; did you mean {meant[:100]!r}?"
    return f"missing column{'s' * (len(missing) > 1)} {quoted_names(missing)}"


def _close_matches(
    missing: Sequence[str], names: Sequence[str], columns: Sequence[Column]
) -> list[tuple[str, str]]:
    known = {column.name for column in columns}
    unknown = [name for name in names if name not in known and len(name) < 200][:100]
    pairs = [
        (difflib.SequenceMatcher(None, wanted, name).ratio(), wanted, name)
        for wanted in missing[:100]
        for name in difflib.get_close_matches(wanted, unknown, 1, 0.8)
    ]
    return [(wanted, name) for _, wanted, name in sorted(pairs, reverse=True)]


def _rows(content: dict[str, Any]) -> Any:
    """Return the rows of a JSON request as objects, or as lists where nothing names them."""
    split = content.get("dataframe_split")
    if isinstance(split, dict):
        rows, names = split["data"], split.get("columns")
        if names is None:
            return rows
        if not all(isinstance(row, list) and len(row) == len(names) for row in rows):
            wrong = next(i for i, r in enumerate(rows) if not isinstance(r, list) or len(r) != len(names))
            length = len(rows[wrong]) if isinstance(rows[wrong], list) else "no"
            raise InputError(f"row {wrong} has {length} values, and there are {len(names)} columns")
        return [dict(zip(names, row, strict=True)) for row in rows]
    key = next(key for key in FORMATS if key in content)
    return content[key] if isinstance(content[key], list) else None
