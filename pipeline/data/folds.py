"""Divide rows into folds for the cross-validation, by the rule that also chose the holdout.

Rows of one unit (equal rows, or the rows of one group) are in one fold. With `time`, the folds are
expanding windows: each one is tested on the rows that follow its training rows.
"""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import KFold, StratifiedKFold, TimeSeriesSplit

from pipeline.data.dataset import Dataset, quoted_values
from pipeline.errors import InvalidParameter
from pipeline.params.definitions import TrainParams

_log = logging.getLogger(__name__)

_INNER_FOLDS = 5  # for calibration and threshold
Rows = npt.NDArray[np.int64]


def check_folds(dataset: Dataset, params: TrainParams) -> None:
    """Log why there are fewer folds than `cv` asks for, before a run is opened.

    Raises
    ------
    InvalidParameter
        If there are fewer groups or times than folds, or a fold would have no row of a class to train on.
    """
    found, asked = make_folds(dataset, params), math.prod(_folds_and_repeats(params))
    unit = "row" if params.group is None else "group"
    is_refused = dataset.times is None or params.model == "xgboost"  # which needs all classes
    if is_refused and (missing := _missing_classes(dataset, found)):
        reason = f"the training rows of a fold have no {quoted_values(missing)}, which is in few {unit}s"
        raise InvalidParameter("cv", params.cv, f"{reason}: use fewer folds, or drop the class")
    if not found:
        _log.warning("the cross-validation is left out: a class has only one training %s", unit)
    elif len(found) < asked:
        few = f"a class has only a few training {unit}s"
        reason = few if dataset.times is None else "the first rows have one class"
        _log.warning("%d folds instead of %d: %s", len(found), asked, reason)


def make_folds(dataset: Dataset, params: TrainParams) -> list[tuple[Rows, Rows]]:
    """Return the positions of the training rows and the test rows of each fold.

    The list is empty if the rows are too few for two folds.

    Parameters
    ----------
    dataset
        The rows to divide.
    params
        The parameters of the training; `cv`, `group`, `time` and `random_state` are used.

    Raises
    ------
    InvalidParameter
        If there are fewer groups or times than folds.
    """
    wanted, repeats = _folds_and_repeats(params)
    if dataset.times is not None:
        folds = _expanding_windows(dataset.times, wanted, params)
    else:
        groups = len(np.unique(dataset.units))
        if params.group is not None and groups < wanted:
            reason = f"group={params.group} has only {groups} groups to train on: use fewer folds"
            raise InvalidParameter("cv", params.cv, reason)
        number = min(wanted, _units_of_smallest_class(dataset))
        seeds = range(params.random_state, params.random_state + repeats)
        folds = [fold for seed in seeds if number > 1 for fold in _divide(dataset, number, seed)]
    if not dataset.target_names:
        return folds
    return [fold for fold in folds if dataset.labels.iloc[fold[0]].nunique() > 1]


def divide_units(dataset: Dataset, params: TrainParams) -> list[tuple[Rows, Rows]]:
    """Return up to five folds that have all rows once and keep units, or rows of one time, whole.

    Calibration, threshold and encoding by labels use them. The list is empty if the rows are too few for
    two folds.
    """
    if dataset.times is not None:
        _, times = np.unique(dataset.times, return_inverse=True)
        dataset = replace(dataset, units=times.astype(np.uint64))
    for number in range(min(_INNER_FOLDS, _units_of_smallest_class(dataset)), 1, -1):
        folds = _divide(dataset, number, params.random_state)
        if not _missing_classes(dataset, folds):
            return folds
    return []


def _missing_classes(dataset: Dataset, folds: list[tuple[Rows, Rows]]) -> list[str]:
    """Return the classes that the training rows of a fold lack."""
    codes = class_of_rows(dataset)
    missing = {int(code) for fitted, _ in folds for code in np.setdiff1d(codes, codes[fitted])}
    return [dataset.target_names[code] for code in sorted(missing)]


def _folds_and_repeats(params: TrainParams) -> tuple[int, int]:
    folds, _, repeats = params.cv.partition("x")
    return int(folds), int(repeats or 1)


def class_of_rows(dataset: Dataset) -> npt.NDArray[np.int64]:
    """Return the class code of each row, shape (rows,); 0 for all rows of a regression."""
    codes = dataset.labels.to_numpy()
    return codes if dataset.target_names else np.zeros(len(codes), dtype=np.int64)


def _units_of_smallest_class(dataset: Dataset) -> int:
    """Return the largest possible number of folds: each class needs a unit in each of them."""
    pairs = np.unique(np.stack([class_of_rows(dataset).astype(np.uint64), dataset.units]), axis=1)
    return int(np.unique(pairs[0], return_counts=True)[1].min())


def _expanding_windows(times: npt.NDArray[Any], wanted: int, params: TrainParams) -> list[tuple[Rows, Rows]]:
    distinct, order = np.unique(times, return_inverse=True)
    if len(distinct) <= wanted:
        few = f"time={params.time} has only {len(distinct)} different times to train on: use fewer folds"
        raise InvalidParameter("cv", params.cv, few)
    return [
        (np.flatnonzero(np.isin(order, train)), np.flatnonzero(np.isin(order, test)))
        for train, test in TimeSeriesSplit(wanted).split(distinct)
    ]


def _divide(dataset: Dataset, number: int, seed: int) -> list[tuple[Rows, Rows]]:
    codes = class_of_rows(dataset)
    kind = StratifiedKFold if dataset.target_names else KFold
    folds = kind(number, shuffle=True, random_state=seed % 2**32).split(codes, codes)
    parts = np.empty(len(codes), dtype=np.int64)
    for part, (_, test) in enumerate(folds):
        parts[test] = part
    parts = keep_units_whole(parts, dataset.units, codes, seed)
    return [(np.flatnonzero(parts != part), np.flatnonzero(parts == part)) for part in range(number)]


def keep_units_whole(
    parts: npt.NDArray[np.int64], units: npt.NDArray[np.uint64], codes: npt.NDArray[np.int64], seed: int
) -> npt.NDArray[np.int64]:
    """Move each unit whose rows are in several parts into one part; return the part of each row.

    The parts keep about their numbers of rows of each class, no part is empty, and rows of whole units
    stay where they are.

    Parameters
    ----------
    parts, units, codes
        The part, the unit and the class of each row, shape (rows,), with no more parts than units.
    seed
        Determines the order in which units of about the same size are placed; large units come first.
    """
    _, unit = np.unique(units, return_inverse=True)
    order = np.argsort(unit, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(unit[order])) + 1)
    cut = [rows for rows in members if len(rows) > 1 and len(set(parts[rows])) > 1]
    if not cut:
        return parts
    parts, classes = parts.copy(), int(codes.max()) + 1
    room = np.zeros((int(parts.max()) + 1, classes))  # rows that each part lost
    for rows in cut:
        np.add.at(room, (parts[rows], codes[rows]), 1)
        parts[rows] = -1
    is_empty = ~np.isin(np.arange(len(room)), parts)
    # By part, so that the smaller side of a split gets large units too; by class, so that a rare one counts.
    scale = np.maximum(room, 1) * np.maximum(room.sum(axis=0), 1)
    # Units of one power of two change their order: with a strict one, the repeats would have equal folds.
    magnitudes = np.array([len(rows).bit_length() for rows in cut])
    shuffled = np.random.default_rng(seed).permutation(len(cut))
    for placed, place in enumerate(shuffled[np.argsort(-magnitudes[shuffled], kind="stable")]):
        rows = cut[place]
        counts = np.bincount(codes[rows], minlength=classes)
        cost = (((room - counts) ** 2 - room**2) / scale).sum(axis=1)
        if np.count_nonzero(is_empty) >= len(cut) - placed:
            cost[~is_empty] = np.inf
        part = int(np.argmin(cost))
        is_empty[part] = False
        room[part] -= counts
        parts[rows] = part
    return parts
