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
    try:
        if content_type == "application/json":
            _check_shape(content)
        if info.signature is not None:
            hint = "; the first line is the header" if content_type == "text/csv" else ""
            _check_table(_table(content, content_type), info.signature, hint)
    except InputError as error:
        return error.public
    except (ValueError, TypeError, LookupError, ArithmeticError):
        pass  # no table at all
    if info.tensor is not None:
        return f"the rows do not fit the signature of the model, a {info.tensor}"
    return f"the model cannot read this {content_type} body as a table of its columns"


def _check_shape(content: Any) -> None:
    if not isinstance(content, dict):
        raise InputError(f"the body is not a JSON object: it needs {_ONE_OF}")
    keys = [key for key in FORMATS if key in content]
    if len(keys) != 1:
        found = f"; it has {quoted_names(keys)}" if keys else ""
        raise InputError(f"the body needs {_ONE_OF}{found}")
    rows = content[keys[0]]
    if keys[0] == "dataframe_records" and not isinstance(rows, list):
        raise InputError("dataframe_records is not a list of objects")
    if keys[0] != "dataframe_split":
        return
    if not isinstance(rows, dict) or "data" not in rows:
        raise InputError("dataframe_split needs an object with 'data' and 'columns'")
    names, data = rows.get("columns"), rows["data"]
    if not isinstance(data, list):
        raise InputError("dataframe_split: 'data' is not a list of rows")
    if isinstance(names, list):
        for number, row in enumerate(data):
            length = len(row) if isinstance(row, (list, tuple)) else "no"
            if length != len(names):
                raise InputError(f"row {number} has {length} values, and there are {len(names)} columns")


def _check_table(table: pd.DataFrame, columns: Sequence[Column], hint: str) -> None:
    if isinstance(table.columns, pd.RangeIndex):
        named = quoted_names(column.name for column in columns[:2])
        raise InputError(f"the rows name no columns: send objects with {named}, …, or dataframe_split")
    names = dict.fromkeys(map(str, table.columns))
    missing = [column.name for column in columns if column.required and column.name not in names]
    for wanted, meant in _close_matches(missing, names, columns):
        raise InputError(f"missing column {wanted!r}; did you mean {meant[:100]!r}?{hint}")
    if missing:
        raise InputError(f"missing column{'s' * (len(missing) > 1)} {quoted_names(missing)}{hint}")
    coerced = coerce(table, columns)
    unfilled = [str(name) for name in coerced.columns if coerced[name].isna().any()]
    if unfilled:
        raise InputError(f"missing values in {quoted_names(unfilled)}, which this model cannot take")


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
