"""Warn of columns that give the label away, and of training rows that occur in the holdout again."""

from __future__ import annotations

import logging

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.data.columns import how_to_drop
from pipeline.data.dataset import Dataset
from pipeline.params.definitions import TrainParams
from registry_tools.data.row_hash import hash_rows

_log = logging.getLogger(__name__)

_FEW_ROWS = 50  # with fewer rows, one of many columns may fit the labels by chance
_MOST_ROWS = 10_000  # of a larger table, so many rows are looked at
_REMAINING = 0.02  # of the errors of a constant prediction, if a column predicts almost perfectly


def warn_of_leaks(training: Dataset, holdout: Dataset, params: TrainParams) -> None:
    """Log a warning for each column that predicts the label alone, and for rows on both sides.

    Parameters
    ----------
    training, holdout
        The two parts of the rows.
    params
        The parameters of the training; `group` and `time` are used.
    """
    held_out = hash_rows(holdout.features)
    if 2 * len(np.unique(held_out)) < len(held_out):
        _log.warning(
            "the %d held-out rows have only %d different values: equal rows stay on one side of the split, "
            "and the gates count them once; add columns that tell the rows apart",
            *(len(held_out), len(np.unique(held_out))),
        )
    shared = np.isin(held_out, hash_rows(training.features))
    if shared.any() and (params.group is not None or params.time is not None):
        _log.warning(
            "%d of %d held-out rows equal training rows of another %s: metrics may be too good; remove "
            "copies of one record",
            *(shared.sum(), len(shared), "time" if params.group is None else "group"),
        )
    rows = slice(None, None, -(-len(training.labels) // _MOST_ROWS))
    labels = training.labels.to_numpy()[rows]
    errors = _errors_of_classes if training.target_names else _errors_of_numbers
    for name, column in training.features.iloc[rows].items():
        is_number = pd.api.types.is_numeric_dtype(column)
        values = column.to_numpy(dtype="float64") if is_number else pd.factorize(column)[0].astype("float64")
        left = errors(values, labels, is_number)
        if left == 0 or (left <= _REMAINING and len(labels) >= _FEW_ROWS):
            _log.warning(
                "column %r %s: if it is not known before the label, %s",
                name,
                "is equal to the label" if left == 0 else "alone predicts the label almost perfectly",
                how_to_drop(str(name)),
            )


def _errors_of_classes(
    values: npt.NDArray[np.float64], labels: npt.NDArray[np.int64], is_number: bool
) -> float:
    """Return the errors that remain if one column predicts the class; those of a constant are 1.

    The result is 0 only if each class has one value of its own.
    """
    frequent = 1 - np.bincount(labels).max() / len(labels)
    classes = len(np.unique(labels))
    pairs = pd.DataFrame({"value": values, "label": labels})
    distinct = len(np.unique(values))
    if distinct == classes == len(pairs.drop_duplicates()):
        return 0.0
    if is_number and np.isfinite(values).all():
        from sklearn.tree import DecisionTreeClassifier

        few_steps = DecisionTreeClassifier(max_leaf_nodes=classes + 2, random_state=0)
        wrong = 1 - few_steps.fit(values[:, np.newaxis], labels).score(values[:, np.newaxis], labels)
    elif distinct <= len(labels) / 10:
        wrong = 1 - pairs.value_counts().groupby("value").max().sum() / len(labels)
    else:
        return 1.0
    return max(float(wrong / frequent), 1e-9) if frequent else 1.0


def _errors_of_numbers(
    values: npt.NDArray[np.float64], labels: npt.NDArray[np.float64], is_number: bool
) -> float:
    """Return the squared errors that remain if a line through one column predicts the number, relative."""
    if not is_number or not np.isfinite(values).all() or not values.std():
        return 1.0
    if np.array_equal(values, labels):
        return 0.0
    return max(float(1 - np.corrcoef(values, labels)[0, 1] ** 2), 1e-9)
