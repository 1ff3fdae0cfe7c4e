"""Read dates from text, and compute their parts; models of `pipeline` that learn from dates call this."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

PARTS = ("year", "month", "day", "dayofweek", "hour", "minute")


def parse_dates(column: pd.Series) -> pd.Series:
    """Return text or dates as times in UTC; a value that is no date in ISO 8601 becomes missing."""
    if not pd.api.types.is_datetime64_any_dtype(column):
        column = column.astype(object).where(column.notna(), None).map(str, na_action="ignore")
    return pd.to_datetime(column, format="ISO8601", errors="coerce", utc=True).astype("datetime64[us, UTC]")


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
