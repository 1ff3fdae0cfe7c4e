"""Rows brought into the form that a model was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from registry_tools.data.schema import NUMBERS, Column, quoted_names
from registry_tools.errors import InputError


def coerce(rows: Any, columns: Sequence[Column] | None) -> pd.DataFrame:
    """Bring rows into the form that the model was trained on.

    Parameters
    ----------
    rows
        A DataFrame or a sequence of mappings, matched by column name in any order, or an array or
        a sequence of sequences of shape (rows, columns), matched by position.
    columns
        The columns of the signature; None leaves names and types as they are.

    Raises
    ------
    InputError
        If columns are missing or doubled, a row is too short or too long, or a value is not of
        its column's type; names the row (from 0), the column and the value. A missing value is
        left to the model, which may have learnt what to do about it.
    """
    table = _table(rows, columns)
    if columns is None:
        return table
    doubled = table.columns[table.columns.duplicated()]
    if len(doubled):
        raise InputError(f"column {doubled[0]!r} occurs twice in the rows")
    missing = [column.name for column in columns if column.name not in table]
    needed = [column.name for column in columns if column.required and column.name in missing]
    if needed:
        raise InputError(
            f"missing column{'s' * (len(needed) > 1)} {quoted_names(needed)}; "
            f"the rows have {quoted_names(map(str, table.columns))}"
        )
    series = {c.name: _typed(table[c.name], c) for c in columns if c.name not in missing}
    for name in missing:
        series[name] = pd.Series([np.nan] * len(table), index=table.index)
    return pd.DataFrame({column.name: series[column.name] for column in columns})


def _table(rows: Any, columns: Sequence[Column] | None) -> pd.DataFrame:
    if isinstance(rows, pd.DataFrame):
        return rows.reset_index(drop=True)
    if isinstance(rows, np.ndarray):
        if rows.ndim != 2:
            raise InputError(f"expected rows × columns, got an array of shape {rows.shape}")
        rows = rows.tolist()
    if isinstance(rows, (str, bytes, Mapping)) or not isinstance(rows, Sequence):
        raise InputError(f"expected a sequence of rows, got {type(rows).__name__}")
    if all(isinstance(row, Mapping) for row in rows):
        return pd.DataFrame(list(rows))
    width = len(columns) if columns is not None else None
    for index, row in enumerate(rows):
        if isinstance(row, (str, bytes, Mapping)) or not isinstance(row, (Sequence, np.ndarray)):
            raise InputError(
                f"row {index} is {row!r}: expected a sequence of values",
                public=f"row {index} is no sequence of values",
            )
        if width is None:
            width = len(row)
        if len(row) != width:
            wanted = quoted_names(c.name for c in columns) if columns is not None else "as in row 0"
            raise InputError(f"row {index} has {len(row)} values, {width} are needed: {wanted}")
    names = [c.name for c in columns] if columns is not None else None
    return pd.DataFrame([list(row) for row in rows], columns=names)


def _typed(values: pd.Series, column: Column) -> pd.Series:
    holes = values.isna()
    if column.type in NUMBERS:
        return _numbers(values, column, holes)
    if column.type == "boolean":
        is_boolean = values.map(lambda value: isinstance(value, (bool, np.bool_)))
        _refuse(values, ~(is_boolean | holes), column, "true or false")
        return values.astype(object).where(~holes, None) if holes.any() else values.astype("bool")
    if column.type == "string":
        is_text = values.map(lambda value: isinstance(value, str))
        _refuse(values, ~(is_text | holes), column, "text")
        return values.astype(object).where(~holes, np.nan)
    return values


def _numbers(values: pd.Series, column: Column, holes: pd.Series) -> pd.Series:
    is_number = values.map(lambda value: isinstance(value, _NUMERIC) and not _is_boolean(value))
    bad = ~(is_number | holes)
    # One word has pandas read all numbers of a CSV's column as text: it is the word that is wrong.
    worse = bad & ~values.map(_reads_as_number)
    _refuse(values, worse if worse.any() else bad, column, "a number")
    target = np.dtype(NUMBERS[column.type])
    if target.kind == "i" and not holes.any():
        low, high = np.iinfo(target).min, np.iinfo(target).max
        fits = values.map(lambda value: value == value // 1 and low <= value <= high)
        _refuse(values, ~fits.astype(bool), column, f"a whole number that {column.type} holds")
        return values.map(int).astype(target)
    with np.errstate(over="ignore"):
        numbers = values.map(_float, na_action="ignore").astype("float64")
        narrow = numbers.astype(target if target.kind == "f" else "float64")
    _refuse(values, np.isinf(narrow), column, "a finite number")
    return narrow


_NUMERIC = (int, float, np.number, Decimal)


def _is_boolean(value: object) -> bool:
    return isinstance(value, (bool, np.bool_))


def _reads_as_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    except OverflowError:  # one of very many digits
        pass
    return True


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf")


def _refuse(values: pd.Series, bad: pd.Series, column: Column, wanted: str) -> None:
    if bad.any():
        row = int(np.argmax(bad.to_numpy()))
        value = values.iloc[row]
        shown = value.item() if isinstance(value, np.generic) else value
        where = f"column {column.name!r}, row {row}"
        raise InputError(
            f"{where}: {shown!r} is not {wanted}",
            public=f"{where}: a value of type {type(shown).__name__} is not {wanted}",
        )
