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


def _kind_of(column: pd.Series, forced: str | None) -> str:
    # pandas stores booleans with missing values as objects.
    if pd.api.types.is_bool_dtype(column) or (column.dtype == object and column.map(type).eq(bool).any()):
        return BOOLEANS
    if pd.api.types.is_numeric_dtype(column):
        return NUMBERS
    return DATES if forced == "date" or (forced is None and are_dates(column)) else TEXTS
