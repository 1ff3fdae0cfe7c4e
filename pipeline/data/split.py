"""Split a table into training rows and holdout rows, stratified by class or by the hash of each row."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import train_test_split

from pipeline.data.dataset import Dataset, quoted_values
from pipeline.errors import InvalidParameter
from pipeline.params.definitions import TrainParams
from registry_tools.data.row_hash import unit_interval


def split_rows(dataset: Dataset, params: TrainParams) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the positions of the training rows and of the holdout rows, both in ascending order.

    Parameters
    ----------
    dataset
        All rows.
    params
        The parameters of the training; `split`, `test_size` and `random_state` are used.

    Raises
    ------
    InvalidParameter
        If `test_size` leaves one side empty, or leaves no training row of a class.
    """
    assign = _hash_split if params.split == "hash" else _stratified_split
    train, holdout = assign(dataset, params)
    if not len(train) or not len(holdout):
        empty = "held out" if not len(holdout) else "left to train on"
        raise InvalidParameter(
            "test_size", params.test_size, f"0 of {len(dataset.labels)} rows would be {empty}"
        )
    present = np.bincount(dataset.labels.iloc[train], minlength=len(dataset.target_names))
    missing = [dataset.target_names[code] for code in np.flatnonzero(present == 0)]
    if missing:
        raise InvalidParameter(
            "test_size",
            params.test_size,
            f"no row of class {quoted_values(missing)} would be left to train on",
        )
    return train, holdout


def _hash_split(dataset: Dataset, params: TrainParams) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    held_out = unit_interval(dataset.hashes, params.random_state) < params.test_size
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _stratified_split(
    dataset: Dataset, params: TrainParams
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    rows, classes = len(dataset.labels), len(dataset.target_names)
    size = params.test_size
    held_out = size if isinstance(size, int) else math.ceil(size * rows)
    for count, purpose in ((held_out, "held out"), (rows - held_out, "left to train on")):
        if count < classes:
            raise InvalidParameter(
                "test_size",
                size,
                f"{max(count, 0)} of {rows} rows would be {purpose}, fewer than the {classes} classes",
            )
    train, holdout = train_test_split(
        np.arange(rows), test_size=size, random_state=params.random_state, stratify=dataset.labels
    )
    return np.sort(train), np.sort(holdout)
