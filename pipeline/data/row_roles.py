"""Read the columns that say how to treat a row: its group, its time and its weight."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.data.columns import is_numeric
from pipeline.data.dataset import quoted_values
from pipeline.errors import DataError
from pipeline.params.definitions import TrainParams
from registry_tools.data.dates import parse_dates
from registry_tools.data.row_hash import hash_rows


def check_columns(table: pd.DataFrame, params: TrainParams) -> None:
    """Check that the table has the columns that the parameters name.

    Raises
    ------
    DataError
        If it lacks one.
    """
    for parameter in ("target", "drop", "dtypes", "group", "time", "weight"):
        names = getattr(params, parameter) or ()
        for name in [names] if isinstance(names, str) else names:
            if name not in table:
                columns = quoted_values(table.columns)
                raise DataError(f"{parameter}={name}: {params.data} has no such column, only {columns}")


def row_units(table: pd.DataFrame, features: pd.DataFrame, params: TrainParams) -> npt.NDArray[np.uint64]:
    """Return the unit of each row, shape (rows,): its group, or all its features.

    Raises
    ------
    DataError
        If a row has no group, or all rows have the same.
    """
    if params.group is None:
        return hash_rows(features)
    groups = table[params.group]
    where = f"group={params.group}: {params.data}"
    if groups.isna().any():
        raise DataError(
            f"{where} has {groups.isna().sum()} rows without a group: fill them, or leave them out"
        )
    if groups.nunique() == 1:
        raise DataError(f"{where} has only the group {str(groups.iloc[0])!r}; two are needed")
    return hash_rows(groups.to_frame())


def check_groups_of_classes(table: pd.DataFrame, params: TrainParams) -> None:
    """Check that each class is in two groups, one for each side of a split.

    Raises
    ------
    DataError
        If all rows of a class are in one group.
    """
    if params.group is None:
        return
    groups, classes = table[params.group], table[params.target]
    groups_of_class = groups.groupby(classes, observed=True).nunique()
    if groups_of_class.min() == 1:
        name = groups_of_class.idxmin()
        group = groups[classes == name].iloc[0]
        raise DataError(
            f"group={params.group}: all rows of class {str(name)!r} are in the group {str(group)!r}, "
            f"which has {(groups == group).mean():.0%} of the rows; two groups are needed: leave the class "
            "out, or merge it with another"
        )


def row_times(table: pd.DataFrame, params: TrainParams) -> npt.NDArray[Any] | None:
    """Return the time of each row as a number, shape (rows,); None without the parameter `time`.

    Raises
    ------
    DataError
        If a value is neither a number nor a date, or is missing.
    """
    if params.time is None:
        return None
    column = table[params.time]
    times = column if is_numeric(column) else parse_dates(column)
    _refuse_values(times.isna(), "time", column, params, "2026-01-31, 2026-01-31 12:30 or a number")
    return times.to_numpy() if is_numeric(column) else times.astype("int64").to_numpy()


def row_weights(table: pd.DataFrame, params: TrainParams) -> npt.NDArray[np.float64] | None:
    """Return the weight of each row, shape (rows,); None without the parameter `weight`.

    Raises
    ------
    DataError
        If a weight is negative or no number, or all are zero.
    """
    if params.weight is None:
        return None
    weights = pd.to_numeric(table[params.weight], errors="coerce").astype("float64").to_numpy()
    wrong = ~(np.isfinite(weights) & (weights >= 0))
    _refuse_values(wrong, "weight", table[params.weight], params, "numbers from 0")
    if not weights.any():
        raise DataError(f"weight={params.weight}: all weights are 0")
    return weights


def _refuse_values(wrong: Any, role: str, column: pd.Series, params: TrainParams, valid: str) -> None:
    """Refuse the first row of a column whose value is marked as wrong for its role."""
    if wrong.any():
        row = int(np.argmax(wrong))
        where = f"{role}={column.name}: row {row} of {params.data}"
        raise DataError(f"{where} has {str(column.iloc[row])!r}, which is no {role}: write {valid}")
