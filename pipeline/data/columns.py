"""Check the feature columns of a table, keep the usable ones, and tell their kinds apart."""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Mapping
from datetime import date
from decimal import Decimal

import numpy as np
import pandas as pd

from pipeline.errors import DataError
from pipeline.params.types import as_text
from registry_tools.data.dates import are_dates, parse_dates

_log = logging.getLogger(__name__)

NUMBERS, DATES, TEXTS, BOOLEANS = "numbers", "dates", "texts", "booleans"
_FEW_ROWS = 20  # with so few rows, a useful column may have a different value in each row


def usable_columns(table: pd.DataFrame, path: str, dtypes: Mapping[str, str]) -> pd.DataFrame:
    """Return the feature columns as numbers, text and booleans; dates are text in ISO 8601.

    Columns that are empty or constant are left out with a warning.

    Parameters
    ----------
    table
        The raw feature columns, shape (rows, columns).
    path
        The name of the table in messages.
    dtypes
        The parameter `dtypes`: `text` or `date` by column.

    Raises
    ------
    DataError
        If a column has an unusable type or an infinite value, or no column is left.
    """
    columns = {}
    for name, raw in table.items():
        column = convert_column(raw)
        if column.isna().all():
            _log.warning("column %r is left out: all its values are missing", name)
        elif column.nunique(dropna=False) == 1:
            _log.warning("column %r is left out: it is constant, %r", name, column.iloc[:1].tolist()[0])
        else:
            columns[name] = column
            _check_values(column, dtypes.get(str(name)), path)
            is_code = column.dtype != float and not (column.dtype == object and are_dates(column))
            if len(column) > _FEW_ROWS and column.is_unique and is_code:
                _log.warning(
                    "column %r has a different value in each row: if it only identifies rows, %s",
                    *(name, how_to_drop(str(name))),
                )
    if not columns:
        raise DataError(f"{path} has no column to learn from besides the label")
    return pd.DataFrame(columns)


def convert_column(column: pd.Series) -> pd.Series:
    """Return a column as int64, float64, booleans or text.

    Booleans and text with missing values are returned with the dtype object.

    Raises
    ------
    DataError
        If the column has other values, such as times or lists.
    """
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    missing = column.isna()
    if column.dtype.kind == "b" and not missing.any():
        return column.astype(bool)
    if column.dtype.kind in "iu" and not missing.any():
        fits = column.max() <= np.iinfo(np.int64).max
        return column.astype("int64") if fits else column
    if column.dtype.kind in "iuf":
        return column.astype("float64")
    kinds = set(column[~missing].map(type))
    if kinds == {Decimal}:
        return column.astype("float64")
    if kinds <= {bool, np.bool_}:
        return column.astype(object).where(~missing, None)
    texts = column.astype(object).where(~missing, np.nan)
    if kinds == {str}:
        return texts
    if all(issubclass(kind, date) for kind in kinds):
        return texts.map(lambda day: day.isoformat(), na_action="ignore")
    names = ", ".join(sorted(kind.__name__ for kind in kinds))
    raise DataError(
        f"column {column.name!r} has values of type {names}: convert it to numbers, or "
        f"{how_to_drop(str(column.name))}"
    )


def how_to_drop(name: str) -> str:
    """Return how to leave out a column, by an option and in a configuration file."""
    in_file = json.dumps([name], ensure_ascii=False)
    return f"leave it out with --drop {shlex.quote(as_text((name,)))}, or with drop: {in_file} in a file"


def _check_values(column: pd.Series, wanted: str | None, path: str) -> None:
    """Refuse an infinite value, and a column that does not have the type that `dtypes` gives it."""
    where = f"column {str(column.name)!r} of {path}"
    if column.dtype == float and np.isinf(column).any():
        row = int(np.argmax(np.isinf(column)))
        raise DataError(f"{where}, row {row}: the value is infinite")
    where = f"dtypes={column.name}:{wanted}: {where}"
    if wanted is not None and column.dtype != object:
        raise DataError(f"{where} holds {column.dtype}: only text becomes {wanted}; convert it in the file")
    if wanted == "date" and (wrong := column.notna() & parse_dates(column).isna()).any():
        row = int(np.argmax(wrong))
        raise DataError(
            f"{where}, row {row}: {column.iloc[row]!r} is no date: write 2026-01-31 or 2026-01-31 12:30"
        )


def kinds_of_columns(features: pd.DataFrame, dtypes: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the names of the columns of each kind.

    Parameters
    ----------
    features
        Columns of a `Dataset`, shape (rows, columns).
    dtypes
        The parameter `dtypes`: `text` or `date` by column. Other text is a date if all of it is.
    """
    kinds: dict[str, list[str]] = {NUMBERS: [], DATES: [], TEXTS: [], BOOLEANS: []}
    for name, column in features.items():
        kinds[_kind_of(column, dtypes.get(str(name)))].append(str(name))
    return kinds


def is_numeric(column: pd.Series) -> bool:
    """Check whether a column has a numeric type; booleans are not numbers."""
    return column.dtype.kind in "iufc"


def _kind_of(column: pd.Series, forced: str | None) -> str:
    if is_numeric(column):
        return NUMBERS
    # pandas stores booleans with missing values as objects.
    if column.dtype == bool or (column.dtype == object and column.map(type).eq(bool).any()):
        return BOOLEANS
    return DATES if forced == "date" or (forced is None and are_dates(column)) else TEXTS
