"""Read the columns that say how to treat a row: its group, its time and its weight."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

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
    wanted = {
        "drop": params.drop,
        "dtypes": tuple(params.dtypes),
        "group": (params.group,),
        "time": (params.time,),
        "weight": (params.weight,),
    }
    for parameter, names in wanted.items():
        unknown = [name for name in names if name is not None and name not in table]
        if unknown:
            raise DataError(
                f"{parameter}={unknown[0]}: {params.data} has no such column, "
                f"only {quoted_values(table.columns)}"
            )


def no_features(table: pd.DataFrame, params: TrainParams) -> list[str]:
    """Return the columns of a table that the model does not learn from: label, group and weight."""
    return [
        name for name in (params.target, params.group, params.weight) if name is not None and name in table
    ]


def row_units(table: pd.DataFrame, params: TrainParams) -> npt.NDArray[np.uint64]:
    """Return the unit of each row, shape (rows,): its group, or all its values but label and weight.

    Raises
    ------
    DataError
        If a row has no group, or all rows have the same.
    """
    if params.group is None:
        return hash_rows(table.drop(columns=no_features(table, params)))
    groups = table[params.group]
    where = f"group={params.group}: {params.data}"
    if groups.isna().any():
        raise DataError(
            f"{where} has {groups.isna().sum()} rows without a group: fill them, or leave them out"
        )
    if groups.nunique() == 1:
        raise DataError(f"{where} has only the group {str(groups.iloc[0])!r}; two are needed")
    return hash_rows(groups.to_frame())


def check_groups_of_classes(table: pd.DataFrame, params: TrainParams, labels: pd.Series) -> None:
    """Check that each class is in two groups, one for each side of a split.

    Raises
    ------
    DataError
        If all rows of a class are in one group.
    """
    if params.group is None:
        return
    groups = table[params.group]
    number = groups.groupby(labels.to_numpy()).nunique()
    if (number == 1).any():
        code = number.index[number == 1][0]
        rows = labels.to_numpy() == code
        group = groups[rows].iloc[0]
        raise DataError(
            f"group={params.group}: all rows of class {str(table[params.target][rows].iloc[0])!r} are in the "
            f"group {str(group)!r}, which has {(groups == group).mean():.0%} of the rows; two groups are "
            "needed: leave the class out, or merge it with another"
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
    is_number = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    times = column if is_number else parse_dates(column)
    if times.isna().any():
        row = int(np.argmax(times.isna()))
        value = str(column.iloc[row])
        raise DataError(
            f"time={params.time}: row {row} of {params.data} has {value!r}, which is no time: "
            "write 2026-01-31, 2026-01-31 12:30 or a number"
        )
    return times.to_numpy() if is_number else times.astype("int64").to_numpy()


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
    if wrong.any() or not weights.any():
        row = int(np.argmax(wrong))
        reason = (
            f"row {row} of {params.data} has {str(table[params.weight].iloc[row])!r}, which is no weight: "
            "write numbers from 0"
            if wrong.any()
            else "all weights are 0"
        )
        raise DataError(f"weight={params.weight}: {reason}")
    return weights
