"""The training baseline of a version, with which monitoring compares production data.

A training writes these files into the version's evidence:

baseline.json              profile of each training column, and of the predictions on the holdout
baseline.parquet           sample of the training rows
baseline_outcomes.parquet  labels and predictions of the holdout, from which the monitoring computes
                           the metric of the version; accuracy needs only the counts of the profile

Monitoring reads only these files, so the training table may be deleted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import TypeAdapter

from pipeline.data.columns import is_numeric
from registry_tools.models import evidence
from registry_tools.stats.metric import METRICS, Outcomes
from registry_tools.task import CLASSIFICATION, DEFAULT_METRICS, REGRESSION

PROFILE_FILE, SAMPLE_FILE, OUTCOMES_FILE = "baseline.json", "baseline.parquet", "baseline_outcomes.parquet"
FILES = PROFILE_FILE, SAMPLE_FILE, OUTCOMES_FILE, evidence.EVALUATION_FILE
_SAMPLE_ROWS = 5000
_MAX_CATEGORIES = 1000
_QUANTILES = np.linspace(0, 1, 11)


@dataclass(frozen=True)
class NumericProfile:
    """Profile of a numeric column."""

    rows: int
    missing: int
    quantiles: tuple[float, ...]  # deciles, from minimum to maximum: 11 values


@dataclass(frozen=True)
class CategoryProfile:
    """Profile of a text or boolean column."""

    rows: int
    missing: int
    counts: Mapping[str, int]  # rows by category, for the most frequent categories
    others: int  # rows of all other categories

    @property
    def is_boolean(self) -> bool:
        """Whether the column is boolean."""
        return bool(self.counts) and set(self.counts) <= {"true", "false"}


_PROFILES = TypeAdapter(dict[str, NumericProfile | CategoryProfile])


@dataclass(frozen=True)
class TrainingBaseline:
    """Profile and sample of a version's training rows, and its predictions on the holdout."""

    rows: int
    target: str
    columns: Mapping[str, NumericProfile | CategoryProfile]
    predictions: Mapping[str, int]  # holdout rows by predicted class; empty for a regression
    correct: int  # holdout rows with a correct prediction; 0 for a regression
    sample: pd.DataFrame
    outcomes: Outcomes | None = None  # the holdout; None for a classification that accuracy decides
    metric: str = DEFAULT_METRICS[CLASSIFICATION]  # the metric that the training chose
    times: tuple[str, ...] = ()  # columns of dates or times, whose values are later in production

    @property
    def task(self) -> str:
        """The task of the version."""
        return CLASSIFICATION if self.predictions else REGRESSION

    @property
    def needs_probabilities(self) -> bool:
        """Whether the metric of the version needs probabilities."""
        return any(each.needs_probabilities for each in METRICS if each.name == self.metric)

    @property
    def holdout_rows(self) -> int:
        """The number of rows in the holdout."""
        return len(self.outcomes.labels) if self.outcomes is not None else sum(self.predictions.values())

    @property
    def predicted_numbers(self) -> npt.NDArray[np.float64]:
        """The predictions of a regression on the holdout, shape (rows,)."""
        return self.outcomes.predicted if self.outcomes is not None else np.empty(0)

    def sample_column(self, name: str) -> pd.Series:
        """Return a column of the sample as float64 numbers or as category names, shape (rows,)."""
        values = self.sample[name]
        if isinstance(self.columns[name], NumericProfile):
            return pd.Series(values.to_numpy(float, na_value=np.nan))
        return values.astype(object).where(values.notna(), None).map(as_category, na_action="ignore")

    @property
    def text_columns(self) -> list[str]:
        """The text columns: categories that are not boolean."""
        return [
            name
            for name, profile in self.columns.items()
            if isinstance(profile, CategoryProfile) and not profile.is_boolean
        ]


def make_baseline(
    training: pd.DataFrame,
    target: str,
    outcomes: Outcomes,
    metric: str = DEFAULT_METRICS[CLASSIFICATION],
    times: Sequence[str] = (),
) -> TrainingBaseline:
    """Return the training baseline of a version.

    Parameters
    ----------
    training
        The features of the training rows, shape (training rows, columns).
    target
        The name of the label column.
    outcomes
        The holdout.
    metric
        The metric that the training chose; accuracy needs only the counts of the outcomes.
    times
        The columns of dates or times among the features.
    """
    is_class = outcomes.predicted.dtype.kind != "f"
    names, counts = np.unique(outcomes.predicted.astype(str) if is_class else [], return_counts=True)
    sample = training.sample(min(len(training), _SAMPLE_ROWS), random_state=0).sort_index()
    return TrainingBaseline(
        rows=len(training),
        target=target,
        columns={str(name): _profile(training[name]) for name in training.columns},
        predictions=dict(zip(names.tolist(), counts.tolist(), strict=True)),
        correct=int((outcomes.predicted == outcomes.labels).sum()) if is_class else 0,
        sample=sample.reset_index(drop=True),
        outcomes=None if metric == "accuracy" else outcomes,
        metric=metric,
        times=tuple(times),
    )


def numeric_profile(values: npt.NDArray[np.float64]) -> NumericProfile:
    """Return the profile of numbers, shape (rows,); NaN marks a missing value."""
    known = values[~np.isnan(values)]
    quantiles = np.quantile(known, _QUANTILES) if len(known) else np.empty(0)
    return NumericProfile(len(values), len(values) - len(known), tuple(quantiles.tolist()))


def _profile(values: pd.Series) -> NumericProfile | CategoryProfile:
    missing = int(values.isna().sum())
    if is_numeric(values):
        return numeric_profile(values.to_numpy(float, na_value=np.nan))
    counts = values.dropna().map(as_category).value_counts()
    kept = {str(name): int(count) for name, count in counts.iloc[:_MAX_CATEGORIES].items()}
    return CategoryProfile(len(values), missing, kept, int(counts.iloc[_MAX_CATEGORIES:].sum()))


def as_category(value: object) -> str:
    """Return the category name of a value: text, with booleans as `true` and `false`."""
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    return str(value)


def write_baseline(folder: Path, baseline: TrainingBaseline) -> None:
    """Write the files of a baseline into a folder."""
    outcomes = baseline.outcomes
    content: dict[str, Any] = {
        "rows": baseline.rows,
        "target": baseline.target,
        "columns": {name: asdict(column) for name, column in baseline.columns.items()},
        "predictions": dict(baseline.predictions),
        "correct": baseline.correct,
        "times": list(baseline.times),
    }
    if outcomes is not None:
        table = {"label": outcomes.labels, "predicted": outcomes.predicted}
        if outcomes.probabilities is not None:
            table |= {f"p{code}": values for code, values in enumerate(outcomes.probabilities.T)}
        pd.DataFrame(table).to_parquet(folder / OUTCOMES_FILE, index=False)
        content["classes"] = list(outcomes.classes)
        if baseline.task == REGRESSION:
            sides = {"predicted_numbers": outcomes.predicted, "label_numbers": outcomes.labels}
            content |= {name: asdict(numeric_profile(values)) for name, values in sides.items()}
    text = json.dumps(content, indent=1, ensure_ascii=False)
    (folder / PROFILE_FILE).write_text(text + "\n", encoding="utf-8")
    baseline.sample.to_parquet(folder / SAMPLE_FILE, index=False)


def read_baseline(folder: Path) -> TrainingBaseline | None:
    """Read a baseline from a folder; return None if a file is missing.

    Raises
    ------
    VerificationError
        If the files cannot be read, or contradict each other.
    """
    if not (folder / PROFILE_FILE).is_file() or not (folder / SAMPLE_FILE).is_file():
        return None
    with evidence.translate_read_errors(folder / PROFILE_FILE):
        content = json.loads((folder / PROFILE_FILE).read_text(encoding="utf-8"))
        sample = pd.read_parquet(folder / SAMPLE_FILE)
        columns = _PROFILES.validate_python(content["columns"])
        _check_sample(sample, columns)
        predictions = {str(name): int(count) for name, count in content["predictions"].items()}
        correct = int(content["correct"])
        outcomes = _read_outcomes(folder / OUTCOMES_FILE, content.get("classes", []))
        task = CLASSIFICATION if predictions else REGRESSION
        chosen = evidence.read_evaluation(folder) or evidence.Evaluation(task, DEFAULT_METRICS[task])
        found = TrainingBaseline(
            int(content["rows"]),
            str(content["target"]),
            columns,
            predictions,
            correct,
            sample,
            outcomes,
            chosen.metric,
            tuple(name for name in columns if name in content.get("times", [])),
        )
        if not 0 <= correct <= sum(predictions.values()) or not found.holdout_rows:
            raise ValueError("the counts of the holdout are inconsistent")
        return found


def _read_outcomes(path: Path, classes: Sequence[str]) -> Outcomes | None:
    if not path.is_file():
        return None
    table = pd.read_parquet(path)
    if not len(table):
        raise ValueError("the holdout is empty")
    probabilities = table.filter(regex=r"^p\d+$").to_numpy(float)
    if probabilities.shape[1] not in {0, len(classes)}:
        raise ValueError("the probabilities do not fit the classes")
    kind = object if classes else float
    return Outcomes(
        table["label"].to_numpy(kind),
        table["predicted"].to_numpy(kind),
        probabilities if probabilities.shape[1] else None,
        tuple(str(name) for name in classes),
    )


def _check_sample(sample: pd.DataFrame, columns: Mapping[str, NumericProfile | CategoryProfile]) -> None:
    if set(sample.columns) != set(columns):
        raise ValueError("sample and profile have different columns")
    if not len(sample):
        raise ValueError("the sample is empty")
    for name, column in columns.items():
        if isinstance(column, NumericProfile) and not (is_numeric(sample[name]) or sample[name].isna().all()):
            raise ValueError(f"column {name!r} is numeric in the profile but not in the sample")
