"""What was right, known afterwards: labels joined to what was answered."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pandas as pd

from pipeline.errors import DataError
from pipeline.monitoring.production_rows import REQUEST, ROW
from pipeline.monitoring.window import Window
from pipeline.training.baseline import TrainingBaseline
from registry_tools.data.schema import quoted_names
from registry_tools.data.tables import read_table

_LABEL = "label"
_KEY = ["request", "row"]


@dataclass(frozen=True)
class LabelledPredictions:
    """Answers whose labels are known."""

    rows: int
    right: int
    notes: tuple[str, ...]  # what is odd about the labels


def read(path: Path, target: str) -> pd.DataFrame:
    """Return labels by `request` and, if they tell, `row`; they stand in `label`.

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
    request = _first(table, REQUEST)
    label = _first(table, (_LABEL, target))
    if request is None or label is None:
        lacking = "'request_id'" if request is None else f"{_LABEL!r} or {target!r}"
        raise DataError(
            f"labels={path}: there is no column {lacking}; "
            f"it has {quoted_names(map(str, table.columns))}"
        )
    row = _first(table, ROW)
    known = table[table[label].notna() & table[request].notna()]
    labels = pd.DataFrame(
        {
            "request": known[request].astype(str).to_numpy(),
            _LABEL: _names(known[label]),
        }
    )
    if row is not None:
        labels["row"] = pd.to_numeric(known[row], errors="coerce").to_numpy()
    return labels


def _names(labels: pd.Series) -> npt.NDArray[Any]:
    """Return labels under the names that a training gives its classes."""
    names = labels.map(str)
    if names.str.fullmatch(r"-?\d+\.0").all():  # a hole in the column made them floats
        names = names.str.removesuffix(".0")
    return names.to_numpy(object)


def _first(table: pd.DataFrame, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in table.columns), None)


def join(labels: pd.DataFrame, window: Window, baseline: TrainingBaseline) -> LabelledPredictions:
    """Count which answers of a window were right.

    A row without a label, or with two that differ, is left out, and told of.

    Raises
    ------
    DataError
        If the rows tell of no request, or the labels speak of other classes.
    """
    if window.keys is None or window.predictions is None:
        raise DataError("labels are joined by request, and the rows have no column 'request_id'")
    answers = window.keys.to_pandas()
    answers["predicted"] = window.predictions.to_pandas().to_numpy()
    answers = answers[answers["predicted"].notna()].drop_duplicates()  # sent again, with one answer
    notes: list[str] = []
    by = _KEY if "row" in labels else ["request"]
    answers = _told_apart(answers, by, notes)
    different = _agreeing(labels, by, notes)
    joined = answers.merge(different, on=by)
    unlabelled = len(answers) - len(answers.merge(labels[by].drop_duplicates(), on=by))
    if unlabelled:
        notes.append(f"{unlabelled} of {len(answers)} rows have no label")
    if len(answers) and unlabelled == len(answers) and len(labels):
        notes.append(
            f"labels are of requests such as {labels['request'].iloc[0]!r}, rows of such as "
            f"{answers['request'].iloc[0]!r}"
        )
    if len(joined):
        _check_classes(joined, baseline)
    return LabelledPredictions(
        len(joined), int((joined["predicted"] == joined[_LABEL]).sum()), tuple(notes)
    )


def _told_apart(answers: pd.DataFrame, by: list[str], notes: list[str]) -> pd.DataFrame:
    """Leave out answers that a label could not be told to be of."""
    several = answers.duplicated(by, keep=False)
    if several.any():
        why = "" if "row" in by else ", and the labels have no column 'row'"
        count = answers.loc[several, "request"].nunique()
        notes.append(f"{count} requests have several answers{why}: they are left out")
    return answers[~several]


def _agreeing(labels: pd.DataFrame, by: list[str], notes: list[str]) -> pd.DataFrame:
    """Count a label once, and leave out those that contradict each other."""
    different = labels.drop_duplicates()
    clash = different.duplicated(by, keep=False)
    doubled = len(labels) - len(different)
    if doubled:
        notes.append(f"{doubled} labels were given twice, and count once")
    if clash.any():
        rows = len(different[clash].drop_duplicates(by))
        notes.append(f"{rows} rows have labels that contradict each other, and are left out")
    return different[~clash]


def _check_classes(joined: pd.DataFrame, baseline: TrainingBaseline) -> None:
    """Refuse labels that are written otherwise than the answers: all would be wrong."""
    said, known = set(joined[_LABEL]), {*joined["predicted"], *baseline.predictions}
    if not said & known:
        raise DataError(
            f"labels: they say {quoted_names(sorted(said)[:5])}, and the version answers "
            f"{quoted_names(sorted(known)[:5])}: none of them is the same"
        )
