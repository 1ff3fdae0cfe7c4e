"""The training baseline of a version, with which monitoring compares production data.

A training writes these files into the version's evidence:

baseline.json              profile of each training column, the classes, and the metric of the version
baseline.parquet           sample of the training rows
baseline_outcomes.parquet  labels and predictions of the holdout, with probabilities if the metric needs
                           them

Monitoring reads only these files, so the training table may be deleted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import TypeAdapter

from pipeline.data.columns import is_numeric
from registry_tools.models import evidence
from registry_tools.stats.metric import METRICS, Outcomes
from registry_tools.task import CLASSIFICATION, DEFAULT_METRICS, REGRESSION

PROFILE_FILE, SAMPLE_FILE, OUTCOMES_FILE = "baseline.json", "baseline.parquet", "baseline_outcomes.parquet"
FILES = PROFILE_FILE, SAMPLE_FILE, OUTCOMES_FILE
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


@dataclass(frozen=True, kw_only=True)
class TrainingProfile:
    """Profile of a version's training rows: the content of `baseline.json`."""

    rows: int
    target: str
    columns: Mapping[str, NumericProfile | CategoryProfile]
    classes: tuple[str, ...]  # in code order; empty for a regression
    metric: str  # the metric that the training chose
    times: tuple[str, ...]  # columns of dates or times, whose values are later in production


_PROFILE = TypeAdapter(TrainingProfile)


@dataclass(frozen=True, kw_only=True)
class TrainingBaseline(TrainingProfile):
    """Profile and sample of a version's training rows, and its predictions on the holdout."""

    sample: pd.DataFrame
    outcomes: Outcomes  # the holdout, with probabilities if the metric needs them

    @property
    def task(self) -> str:
        """The task of the version."""
        return REGRESSION if self.outcomes.predicted.dtype.kind == "f" else CLASSIFICATION

    @property
    def needs_probabilities(self) -> bool:
        """Whether the metric of the version needs probabilities."""
        return self.outcomes.probabilities is not None

    @property
    def predictions(self) -> Mapping[str, int]:
        """The holdout rows by predicted class."""
        return dict(sorted(Counter(self.outcomes.predicted.tolist()).items()))

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
        The metric that the training chose.
    times
        The columns of dates or times among the features.
    """
    is_scored = any(each.name == metric and each.needs_probabilities for each in METRICS)
    sample = training.sample(min(len(training), _SAMPLE_ROWS), random_state=0).sort_index()
    return TrainingBaseline(
        rows=len(training),
        target=target,
        columns={str(name): _profile(training[name]) for name in training.columns},
        classes=outcomes.classes,
        metric=metric,
        times=tuple(times),
        sample=sample.reset_index(drop=True),
        outcomes=outcomes if is_scored else replace(outcomes, probabilities=None),
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
    (folder / PROFILE_FILE).write_bytes(_PROFILE.dump_json(baseline, indent=1) + b"\n")
    baseline.sample.to_parquet(folder / SAMPLE_FILE, index=False)
    outcomes = baseline.outcomes
    holdout = pd.DataFrame({"label": outcomes.labels, "predicted": outcomes.predicted})
    scores = pd.DataFrame(outcomes.probabilities).add_prefix("p")
    holdout.join(scores).to_parquet(folder / OUTCOMES_FILE, index=False)


def read_baseline(folder: Path) -> TrainingBaseline | None:
    """Read a baseline from a folder; return None if a file is missing.

    Raises
    ------
    VerificationError
        If the files cannot be read, or contradict each other.
    """
    if not all((folder / name).is_file() for name in FILES):
        return None
    with evidence.translate_read_errors(folder / PROFILE_FILE):
        profile = _PROFILE.validate_json((folder / PROFILE_FILE).read_bytes())
        sample, holdout = (pd.read_parquet(folder / name) for name in (SAMPLE_FILE, OUTCOMES_FILE))
        _check_sample(sample, profile.columns)
        labels, predicted = (holdout.pop(name).to_numpy() for name in ("label", "predicted"))
        if not len(labels) or holdout.shape[1] not in {0, len(profile.classes)}:
            raise ValueError("the holdout is empty, or its probabilities do not fit the classes")
        probabilities = holdout.to_numpy(float) if holdout.shape[1] else None
        outcomes = Outcomes(labels, predicted, probabilities, profile.classes)
        return TrainingBaseline(**vars(profile), sample=sample, outcomes=outcomes)


def _check_sample(sample: pd.DataFrame, columns: Mapping[str, NumericProfile | CategoryProfile]) -> None:
    if set(sample.columns) != set(columns):
        raise ValueError("sample and profile have different columns")
    if not len(sample):
        raise ValueError("the sample is empty")
    for name, column in columns.items():
        if isinstance(column, NumericProfile) and not (is_numeric(sample[name]) or sample[name].isna().all()):
            raise ValueError(f"column {name!r} is numeric in the profile but not in the sample")
