"""Read dates from text, and compute their parts; models of `pipeline` that learn from dates call this."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

PARTS = ("year", "month", "day", "day_of_week", "hour", "minute")
_DATE = r"\d{4}-\d{2}-\d{2}"


def parse_dates(column: pd.Series) -> pd.Series:
    """Return text or dates as times in UTC; a value that is no date in ISO 8601 becomes missing."""
    if not pd.api.types.is_datetime64_any_dtype(column):
        column = column.astype(object).where(column.notna(), None).map(str, na_action="ignore")
    return pd.to_datetime(column, format="ISO8601", errors="coerce", utc=True).astype("datetime64[us, UTC]")


def are_dates(column: pd.Series) -> bool:
    """Check whether all text of a column begins with a date such as 2026-01-31."""
    texts = column.dropna()
    if not len(texts) or not re.match(_DATE, str(texts.iloc[0])):
        return False
    return bool(texts.map(str).str.match(_DATE).all() and parse_dates(texts).notna().all())


def date_parts(columns: Any, parts: Sequence[Sequence[str]]) -> npt.NDArray[np.float64]:
    """Return parts of dates as numbers, NaN for a missing date; shape (rows, all parts).

    Parameters
    ----------
    columns
        Text in ISO 8601, shape (rows, columns).
    parts
        The parts of each column, out of `PARTS`.
    """
    table = pd.DataFrame(columns)
    values = []
    for place, names in enumerate(parts):
        dates = parse_dates(table.iloc[:, place]).dt
        values += [getattr(dates, name).to_numpy(dtype="float64", na_value=np.nan) for name in names]
    return np.column_stack(values)
