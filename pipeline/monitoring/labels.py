"""Join labels that become known later to the predictions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pandas as pd

from pipeline.errors import DataError
from pipeline.monitoring.production_data import REQUEST, ROW
from pipeline.monitoring.window import CurrentWindow
from pipeline.training.baseline import TrainingBaseline
from registry_tools.data.schema import quoted_names
from registry_tools.data.tables import read_table

_LABEL = "label"
_KEY = ["request", "row"]


@dataclass(frozen=True)
class LabelledPredictions:
    """Predictions whose labels are known."""

    rows: int
    correct: int
    notes: tuple[str, ...]  # what is odd about the labels


def read_labels(path: Path, target: str) -> pd.DataFrame:
    """Return labels by `request` and, if given, `row`; the column `label` holds them.

    Parameters
    ----------
    path
        A table with the column `request_id`, perhaps `row`, and `label` or that of the target.
    target
        The name of the label's column in training.

    Raises
    ------
    DataError, InputError
        If it cannot be read or lacks one of them.
    """
    table = read_table(path, text_columns=[*REQUEST, _LABEL, target])
    request = _first_column(table, REQUEST)
    label = _first_column(table, (_LABEL, target))
    if request is None or label is None:
        lacking = "'request_id'" if request is None else f"{_LABEL!r} or {target!r}"
        raise DataError(
            f"labels={path}: there is no column {lacking}; it has {quoted_names(map(str, table.columns))}"
        )
    row = _first_column(table, ROW)
    known = table[table[label].notna() & table[request].notna()]
    labels = pd.DataFrame(
        {"request": known[request].astype(str).to_numpy(), _LABEL: _class_names(known[label])}
    )
    if row is not None:
        labels["row"] = pd.to_numeric(known[row], errors="coerce").to_numpy()
    return labels


def _class_names(labels: pd.Series) -> npt.NDArray[Any]:
    """Return labels under the names that a training gives its classes."""
    names = labels.map(str)
    if names.str.fullmatch(r"-?\d+\.0").all():  # a missing value made the column floats
        names = names.str.removesuffix(".0")
    return names.to_numpy(object)


def _first_column(table: pd.DataFrame, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in table.columns), None)


def join_labels(
    labels: pd.DataFrame, window: CurrentWindow, baseline: TrainingBaseline
) -> LabelledPredictions:
    """Count which predictions of a window were correct.

    A row without a label, or with two that differ, is left out with a note.

    Raises
    ------
    DataError
        If the rows have no request id, or the labels have other classes.
    """
    if window.keys is None or window.predictions is None:
        raise DataError("labels are joined by request, and the rows have no column 'request_id'")
    predictions = window.keys.to_pandas()
    predictions["predicted"] = window.predictions.to_pandas().to_numpy()
    # A request that was sent again with the same prediction counts once.
    predictions = predictions[predictions["predicted"].notna()].drop_duplicates()
    notes: list[str] = []
    by = _KEY if "row" in labels else ["request"]
    predictions = _drop_ambiguous(predictions, by, notes)
    distinct = _drop_contradictory(labels, by, notes)
    joined = predictions.merge(distinct, on=by)
    unlabelled = len(predictions) - len(predictions.merge(labels[by].drop_duplicates(), on=by))
    if unlabelled:
        notes.append(f"{unlabelled} of {len(predictions)} rows have no label")
    if len(predictions) and unlabelled == len(predictions) and len(labels):
        notes.append(
            f"labels are of requests such as {labels['request'].iloc[0]!r}, rows of such as "
            f"{predictions['request'].iloc[0]!r}"
        )
    if len(joined):
        _check_classes(joined, baseline)
    return LabelledPredictions(len(joined), int((joined["predicted"] == joined[_LABEL]).sum()), tuple(notes))


def _drop_ambiguous(predictions: pd.DataFrame, by: list[str], notes: list[str]) -> pd.DataFrame:
    """Leave out predictions that cannot be matched to one label."""
    several = predictions.duplicated(by, keep=False)
    if several.any():
        why = "" if "row" in by else ", and the labels have no column 'row'"
        count = predictions.loc[several, "request"].nunique()
        notes.append(f"{count} requests have several predictions{why}: they are left out")
    return predictions[~several]


def _drop_contradictory(labels: pd.DataFrame, by: list[str], notes: list[str]) -> pd.DataFrame:
    """Count a label once, and leave out those that contradict each other."""
    distinct = labels.drop_duplicates()
    clash = distinct.duplicated(by, keep=False)
    doubled = len(labels) - len(distinct)
    if doubled:
        notes.append(f"{doubled} labels were given twice, and count once")
    if clash.any():
        rows = len(distinct[clash].drop_duplicates(by))
        notes.append(f"{rows} rows have labels that contradict each other, and are left out")
    return distinct[~clash]


def _check_classes(joined: pd.DataFrame, baseline: TrainingBaseline) -> None:
    """Refuse labels with other class names than the predictions: all would be wrong."""
    given, known = set(joined[_LABEL]), {*joined["predicted"], *baseline.predictions}
    if not given & known:
        raise DataError(
            f"labels: they hold {quoted_names(sorted(given)[:5])}, but the version predicts "
            f"{quoted_names(sorted(known)[:5])}: none of them is the same"
        )
