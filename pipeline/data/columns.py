"""The kinds of feature columns: numbers, dates, text and booleans."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from registry_tools.data.dates import are_dates

NUMBERS, DATES, TEXTS, BOOLEANS = "numbers", "dates", "texts", "booleans"


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
