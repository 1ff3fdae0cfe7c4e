"""Why a model refused a request, in one line that names columns and rows, and never a value."""

from __future__ import annotations

import difflib
import io
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from registry_tools.data.coercion import coerce
from registry_tools.data.schema import Column, quoted_names
from registry_tools.errors import InputError
from registry_tools.inference.decoder import FORMATS
from registry_tools.models.loaded_model import ModelInfo

_ONE_OF = f"exactly one of {', '.join(FORMATS)}"


def refuse_misspelled_columns(rows: Any, columns: Sequence[Column] | None) -> None:
    """Refuse rows with a misspelt optional column, which MLflow would treat as missing.

    Raises
    ------
    InputError
        If an optional column is missing and an unknown one has almost its name.
    """
    if columns is None or all(column.required for column in columns):
        return
    if isinstance(rows, list):
        rows = rows[0] if rows else {}
    names = list(map(str, rows)) if isinstance(rows, (pd.DataFrame, dict)) else []
    optional = [c.name for c in columns if not c.required and c.name not in names]
    for missing, meant in _close_matches(optional, names, columns):
        raise InputError(f"column {meant!r} is unknown: is it the optional column {missing!r}?")


def explain_refusal(content: Any, content_type: str, info: ModelInfo) -> str:
    """Return why MLflow refused a request.

    Parameters
    ----------
    content
        The body; of JSON its parsed content, of Parquet its table if it could be read.
    content_type
        One of MLflow's three.
    info
        The signature of the model.
    """
    fault = _shape_fault(content) if content_type == "application/json" else None
    if fault is None and info.signature is not None:
        try:
            hint = "; the first line is the header" if content_type == "text/csv" else ""
            fault = _table_fault(_table(content, content_type), info.signature, hint)
        except InputError as error:
            fault = error.public
        except (ValueError, TypeError, LookupError, ArithmeticError):
            pass  # no table at all
    if fault is None and info.tensor is not None:
        fault = f"the rows do not fit the signature of the model, a {info.tensor}"
    return fault or f"the model cannot read this {content_type} body as a table of its columns"


def _shape_fault(content: Any) -> str | None:
    if not isinstance(content, dict):
        return f"the body is not a JSON object: it needs {_ONE_OF}"
    keys = [key for key in FORMATS if key in content]
    if len(keys) != 1:
        found = f"; it has {quoted_names(keys)}" if keys else ""
        return f"the body needs {_ONE_OF}{found}"
    rows = content[keys[0]]
    if keys[0] == "dataframe_records" and not isinstance(rows, list):
        return "dataframe_records is not a list of objects"
    if keys[0] != "dataframe_split":
        return None
    if not isinstance(rows, dict) or "data" not in rows:
        return "dataframe_split needs an object with 'data' and 'columns'"
    names, data = rows.get("columns"), rows["data"]
    if not isinstance(data, list):
        return "dataframe_split: 'data' is not a list of rows"
    if isinstance(names, list):
        for number, row in enumerate(data):
            length = len(row) if isinstance(row, (list, tuple)) else "no"
            if length != len(names):
                return f"row {number} has {length} values, and there are {len(names)} columns"
    return None


def _table_fault(table: pd.DataFrame, columns: Sequence[Column], hint: str) -> str | None:
    if isinstance(table.columns, pd.RangeIndex):
        named = quoted_names(column.name for column in columns[:2])
        return f"the rows name no columns: send objects with {named}, …, or dataframe_split"
    fault = _column_fault(list(map(str, table.columns)), columns)
    if fault is not None:
        return fault + hint
    coerced = coerce(table, columns)
    missing = [str(name) for name in coerced.columns if coerced[name].isna().any()]
    return f"missing values in {quoted_names(missing)}, which this model cannot take" if missing else None


def _table(content: Any, content_type: str) -> pd.DataFrame:
    """Return the rows of a request as a table, without the types of the signature."""
    if content_type == "text/csv":
        return pd.read_csv(io.StringIO(content.decode("utf-8")))
    if content_type != "application/json":
        if not isinstance(content, pd.DataFrame):
            raise TypeError("no table")
        return content
    split = content.get("dataframe_split")
    if split is not None:
        return pd.DataFrame(split["data"], columns=split.get("columns"))
    return pd.DataFrame(next(content[key] for key in FORMATS if key in content))


def _column_fault(names: list[str], columns: Sequence[Column]) -> str | None:
    present = set(names)
    missing = [c.name for c in columns if c.required and c.name not in present]
    if not missing:
        return None
    for wanted, meant in _close_matches(missing, names, columns):
        return f"missing column {wanted!r}; did you mean {meant[:100]!r}?"
    return f"missing column{'s' * (len(missing) > 1)} {quoted_names(missing)}"


def _close_matches(
    missing: Sequence[str], names: Iterable[str], columns: Sequence[Column]
) -> list[tuple[str, str]]:
    known = {column.name for column in columns}
    unknown = [name for name in names if name not in known and len(name) < 200][:100]
    pairs = [
        (difflib.SequenceMatcher(None, wanted, name).ratio(), wanted, name)
        for wanted in missing[:100]
        for name in difflib.get_close_matches(wanted, unknown, 1, 0.8)
    ]
    return [(wanted, name) for _, wanted, name in sorted(pairs, reverse=True)]
