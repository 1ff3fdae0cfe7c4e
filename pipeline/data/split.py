"""Split a table into training rows and holdout rows.

The holdout is stratified by class, chosen by the hash of each row, or holds the latest rows. Rows of one
unit (equal rows, or the rows of one group) are on one side.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import train_test_split

from pipeline.data.dataset import Dataset, quoted_values
from pipeline.data.folds import Rows, class_of_rows, keep_units_whole
from pipeline.errors import InvalidParameter
from pipeline.params.definitions import TrainParams
from registry_tools.data.row_hash import unit_interval


def split_rows(dataset: Dataset, params: TrainParams) -> tuple[Rows, Rows]:
    """Return the positions of the training rows and of the holdout rows, both in ascending order.

    Parameters
    ----------
    dataset
        All rows.
    params
        The parameters of the training; `split`, `group`, `time`, `test_size` and `random_state` are used.

    Raises
    ------
    InvalidParameter
        If `test_size` leaves one side empty, or leaves no training row of a class.
    """
    if dataset.times is not None:
        # Rows of the same time are on one side.
        first = max(len(dataset.times) - _holdout_rows(len(dataset.times), params.test_size), 0)
        is_held_out = dataset.times >= np.sort(dataset.times)[first]
    elif params.split == "hash":
        is_held_out = unit_interval(dataset.units, params.random_state) < params.test_size
    else:
        is_held_out = _stratified_rows(dataset, params)
    sides = np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)
    names = dataset.target_names
    for rows, purpose in zip(sides, ("left to train on", "held out"), strict=True):
        missing = np.setdiff1d(np.arange(len(names)), dataset.labels.iloc[rows])
        if not len(rows):
            lacking = f"0 of {len(dataset.labels)} rows"
        elif len(missing) and (purpose != "held out" or params.group is not None or params.time is not None):
            lacking = f"no row of class {quoted_values(names[code] for code in missing)}"
        else:
            continue
        reason = f"{lacking} would be {purpose}: {_other_split(dataset, params)}"
        raise InvalidParameter("test_size", params.test_size, reason)
    return sides


def _other_split(dataset: Dataset, params: TrainParams) -> str:
    """Return the fix for a split that leaves out a side or a class."""
    if params.time is not None:
        return "take another test_size, or another column for time"
    largest = np.unique(dataset.units, return_counts=True)[1].max() / len(dataset.units)
    rows = "equal rows make up" if params.group is None else f"a group of {params.group} has"
    return f"{rows} {largest:.0%} of the rows; take another test_size or random_state, or more rows"


def _holdout_rows(rows: int, size: float) -> int:
    return size if isinstance(size, int) else math.ceil(size * rows)


def _stratified_rows(dataset: Dataset, params: TrainParams) -> npt.NDArray[np.bool_]:
    rows, classes = len(dataset.labels), len(dataset.target_names)
    held_out = _holdout_rows(rows, params.test_size)
    least = max(classes, 1)
    for count, purpose in ((held_out, "held out"), (rows - held_out, "left to train on")):
        if count < least:
            of_classes = f", fewer than the {classes} classes" if classes else ""
            fix = f"hold out {least} to {rows - least} rows" if rows >= 2 * least else "take more rows"
            reason = f"{max(count, 0)} of {rows} rows would be {purpose}{of_classes}: {fix}"
            raise InvalidParameter("test_size", params.test_size, reason)
    _, holdout = train_test_split(
        np.arange(rows),
        test_size=params.test_size,
        random_state=params.random_state,
        stratify=dataset.labels if classes else None,
    )
    sides = np.isin(np.arange(rows), holdout).astype(np.int64)
    return keep_units_whole(sides, dataset.units, class_of_rows(dataset), params.random_state) == 1
