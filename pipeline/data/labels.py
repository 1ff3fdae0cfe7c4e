"""Read the label column: decide the task, and turn labels into class codes or numbers."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd

from pipeline.data.columns import convert_column, is_numeric
from pipeline.data.dataset import quoted_values
from pipeline.errors import DataError
from pipeline.params.types import AUTO
from registry_tools.task import CLASSIFICATION, REGRESSION

_log = logging.getLogger(__name__)

_FEW_VALUES = 20  # with at most so many different whole numbers, a label is a class
_FEW_ROWS = 10  # with fewer rows, a guess means nothing, and numbers are classes
_MOST_CLASSES = 50  # with more different whole numbers, a label is a number


def decide_task(column: pd.Series, asked: str) -> str:
    """Return the task of a label column without missing values: the one that was asked for, or a guess.

    Text and booleans are classes, and so are whole numbers with at most 50 different values. Numbers
    with fractions are numbers to predict, and so are whole numbers with more different values, or with
    more than half as many as there are rows. If the guess may be wrong, a message names the parameter
    that changes it.

    Parameters
    ----------
    column
        The labels, shape (rows,).
    asked
        The parameter `task`: `auto`, `classification` or `regression`.
    """
    column = convert_column(column)
    values = column.nunique()
    if asked != AUTO:
        if asked == CLASSIFICATION and is_numeric(column) and values > _MOST_CLASSES:
            _log.warning(
                "target=%s has %d different numbers, and each becomes a class; to predict the number, set "
                "task=regression",
                *(column.name, values),
            )
        return asked
    if not is_numeric(column):
        return CLASSIFICATION
    is_whole = bool((column == np.floor(column)).all())
    is_spread = len(column) >= _FEW_ROWS and (not is_whole or values > min(_MOST_CLASSES, len(column) / 2))
    task, other = (REGRESSION, CLASSIFICATION) if is_spread else (CLASSIFICATION, REGRESSION)
    is_clear = values > _MOST_CLASSES if is_spread else values <= _FEW_VALUES
    if not is_clear:
        kind = "whole numbers" if is_whole else "numbers"
        _log.warning(
            "target=%s has %d different %s: it is taken for a %s; if that is wrong, set task=%s",
            *(column.name, values, kind, task, other),
        )
    return task


def label_numbers(column: pd.Series, path: str) -> pd.Series:
    """Return the labels of a regression as float64, shape (rows,).

    Raises
    ------
    DataError
        If a label is not a finite number, or all labels are equal.
    """
    if not is_numeric(column):
        numbers = pd.to_numeric(column, errors="coerce")
        wrong = column[numbers.isna()].unique() if column.dtype == object else column.unique()
        if len(wrong):
            raise DataError(
                f"target={column.name}: task=regression needs numbers, and {path} has {quoted_values(wrong)}"
            )
        column = numbers
    column = column.astype("float64")
    _refuse_infinite(column)
    if column.nunique() < 2:
        raise DataError(
            f"target={column.name}: all labels of {path} are {column.iloc[0]:g}; two values are needed"
        )
    return column


def class_codes(column: pd.Series, path: str) -> tuple[tuple[str, ...], pd.Series]:
    """Return the sorted class names, and the class code of each row, shape (rows,).

    Raises
    ------
    DataError
        If there are fewer than two classes, or a class has only one row.
    """
    column = _sortable_labels(column)
    codes, values = pd.factorize(column, sort=True)
    where = f"target={column.name}: {path}"
    if len(values) < 2:
        raise DataError(f"{where} has only the class {quoted_values(values)}; two are needed")
    rare = values[np.bincount(codes) < 2]
    if len(rare):
        many = ": is this column a class?" if len(values) > len(column) / 2 else ""
        number = "; to predict the number, set task=regression" if is_numeric(column) else ""
        raise DataError(
            f"{where} has only one row of {quoted_values(rare)}; each class needs two{many}{number}"
        )
    return tuple(map(str, values)), pd.Series(codes, column.index, "int64", column.name)


def _sortable_labels(column: pd.Series) -> pd.Series:
    """Return labels that can be sorted: integers if all are whole numbers, else floats, else text."""
    column = convert_column(column)
    if column.dtype != float:
        return column if is_numeric(column) else column.astype(object).map(str)
    _refuse_infinite(column)
    whole = (column == np.floor(column)).all() and (column.abs() < 2**53).all()
    return column.astype("int64") if whole else column


def _refuse_infinite(column: pd.Series) -> None:
    if np.isinf(column).any():
        raise DataError(f"target={column.name}: a label is infinite")
