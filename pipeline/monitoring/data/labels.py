"""Join correct labels, which become known later, to the logged predictions.

The join uses the request id, and the row within the request if the labels have it. From the result,
`performance` computes the live metric.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from pipeline.errors import DataError
from pipeline.monitoring.data.production_data import REQUEST, ROW, first_known
from pipeline.monitoring.data.window import CurrentWindow, check_classes
from pipeline.training.baseline import TrainingBaseline
from registry_tools.data.arrow_coercion import MISSING_TEXTS
from registry_tools.data.schema import quoted_names
from registry_tools.files.tables import read_table
from registry_tools.stats.metric import Outcomes
from registry_tools.task import CLASSIFICATION

_LABEL = "label"
_KEY = ["request", "row"]


@dataclass(frozen=True)
class LabelledPredictions:
    """The predictions that have a label."""

    outcomes: Outcomes
    notes: tuple[str, ...]  # problems with the labels, one sentence each

    @property
    def rows(self) -> int:
        """The number of predictions that have a label."""
        return len(self.outcomes.labels)


def read_labels(path: Path, target: str, task: str = CLASSIFICATION) -> pd.DataFrame:
    """Return a table with the columns `request` and `label`, and `row` if the file has it.

    Parameters
    ----------
    path
        A table with the column `request_id`, optionally `row`, and the label in a column `label` or
        `target`.
    target
        The name of the label column in training.
    task
        The task of the version; the labels of a regression are numbers.

    Raises
    ------
    DataError
        If a required column is missing, or the label of a regression is not a number.
    InputError
        If the table cannot be read.
    """
    is_class = task == CLASSIFICATION
    names = [_LABEL, target] if is_class else []
    table = read_table(path, text_columns=[*REQUEST, *names], literal_columns=names)
    request, row = first_known(REQUEST, table.columns), first_known(ROW, table.columns)
    label = first_known((_LABEL, target), table.columns)
    if request is None or label is None:
        lacking = "'request_id'" if request is None else f"{_LABEL!r} or {target!r}"
        has = quoted_names(map(str, table.columns))
        raise DataError(f"labels={path}: the table has no column {lacking}; it has {has}")
    known = table[table[label].notna() & table[request].notna()]
    values = _class_names(known[label]) if is_class else _numbers(known[label], path)
    labels = pd.DataFrame({"request": known[request].astype(str).to_numpy(), _LABEL: values})
    if row is not None:
        labels["row"] = pd.to_numeric(known[row], errors="coerce").to_numpy()
    return labels


def _class_names(labels: pd.Series) -> npt.NDArray[Any]:
    """Return labels as class names, as a training writes them, shape (rows,)."""
    names = labels.map(str)
    known = names[~names.isin(MISSING_TEXTS)]
    if known.str.fullmatch(r"-?\d+\.0").all():  # pandas reads integers with a missing value as floats
        names = names.str.removesuffix(".0")
    return names.to_numpy(object)


def _numbers(labels: pd.Series, path: Path) -> npt.NDArray[np.float64]:
    numbers = pd.to_numeric(labels, errors="coerce").to_numpy(float)
    wrong = labels[~np.isfinite(numbers)]
    if len(wrong):
        raise DataError(f"labels={path}: the version predicts numbers, and {wrong.iloc[0]!r} is none")
    return numbers


def join_labels(
    labels: pd.DataFrame, window: CurrentWindow, baseline: TrainingBaseline
) -> LabelledPredictions:
    """Return the predictions of a window that have a label, with their labels.

    A row without a label, or with two different labels, is left out, and a note says so. A text such as
    `NA` stands for a label that is not known yet, unless the version has a class of this name.

    Parameters
    ----------
    labels
        The table that `read_labels` returns.
    window
        The predictions, with their request ids.
    baseline
        The training baseline of the version, with its class names.

    Raises
    ------
    DataError
        If the rows have no request id, or no label is a class of the version.
    """
    if window.keys is None or window.predictions is None:
        raise DataError("the rows have no column 'request_id', which joins the labels to them")
    predictions = window.keys.to_pandas()
    predictions["predicted"] = window.predictions.to_pandas().to_numpy()
    predictions["place"] = np.arange(len(predictions))
    # A client may retry a request: the same prediction of the same request counts once.
    predictions = predictions[predictions["predicted"].notna()].drop_duplicates([*_KEY, "predicted"])
    notes: list[str] = []
    known = {*predictions["predicted"], *baseline.predictions, *baseline.classes}
    if baseline.task == CLASSIFICATION:
        labels = labels[~labels[_LABEL].isin({*MISSING_TEXTS} - known)]
    by = _KEY if "row" in labels else ["request"]
    predictions = _drop_ambiguous(predictions, by, notes)
    distinct = _drop_contradictory(labels, by, notes)
    joined = predictions.merge(distinct, on=by)
    unlabelled = len(predictions) - len(predictions.merge(labels[by].drop_duplicates(), on=by))
    if unlabelled:
        notes.append(f"{unlabelled} of {len(predictions)} rows have no label")
    if len(predictions) and unlabelled == len(predictions) and len(labels):
        given, logged = (table["request"].iloc[0] for table in (labels, predictions))
        notes.append(f"the request ids differ: the labels have {given!r}, the rows have {logged!r}")
    if len(joined) and baseline.task == CLASSIFICATION:
        message = "the labels are {}, but the version predicts {}"
        check_classes(set(joined[_LABEL]), known, message)
    return LabelledPredictions(_outcomes(joined, window, baseline.classes), tuple(notes))


def _outcomes(joined: pd.DataFrame, window: CurrentWindow, classes: tuple[str, ...]) -> Outcomes:
    probabilities = None
    if window.probabilities is not None and len(joined):
        found = window.probabilities.take(pa.array(joined["place"])).to_pylist()
        if {len(row or ()) for row in found} == {len(classes)}:
            probabilities = np.array(found, dtype=float)
    labels, predicted = (joined[name].to_numpy() for name in (_LABEL, "predicted"))
    return Outcomes(labels, predicted, probabilities, classes)


def _drop_ambiguous(predictions: pd.DataFrame, by: list[str], notes: list[str]) -> pd.DataFrame:
    """Leave out predictions that share their key, because a label could belong to each of them."""
    several = predictions.duplicated(by, keep=False)
    if several.any():
        why = "" if "row" in by else ", and the labels have no column 'row'"
        count = predictions.loc[several, "request"].nunique()
        notes.append(f"{count} requests have several predictions{why}; they are left out")
    return predictions[~several]


def _drop_contradictory(labels: pd.DataFrame, by: list[str], notes: list[str]) -> pd.DataFrame:
    """Keep each label once, and leave out labels that contradict each other."""
    distinct = labels.drop_duplicates()
    clash = distinct.duplicated(by, keep=False)
    doubled = len(labels) - len(distinct)
    if doubled:
        notes.append(f"{doubled} labels occur twice; each counts once")
    if clash.any():
        rows = len(distinct[clash].drop_duplicates(by))
        notes.append(f"{rows} rows have labels that contradict each other; they are left out")
    return distinct[~clash]
