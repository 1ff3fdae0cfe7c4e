"""The training baseline that monitoring compares with: two files of a version's evidence.

baseline.json     a profile of the training rows, and of the predictions on the holdout
baseline.parquet  a sample of the training rows

The training table is not needed again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from registry_tools.errors import VerificationError, first_line

FILES = PROFILE_FILE, SAMPLE_FILE = "baseline.json", "baseline.parquet"
_SAMPLE_ROWS = 5000
_MAX_CATEGORIES = 1000
_QUANTILES = np.linspace(0, 1, 11)


@dataclass(frozen=True)
class NumericProfile:
    """A column of numbers."""

    rows: int
    missing: int
    quantiles: tuple[float, ...]  # in steps of a tenth, from the least to the greatest


@dataclass(frozen=True)
class CategoryProfile:
    """A column of text or of true and false."""

    rows: int
    missing: int
    counts: Mapping[str, int]  # the commonest
    others: int  # rows of all other categories

    @property
    def is_boolean(self) -> bool:
        """Whether it is true and false."""
        return bool(self.counts) and set(self.counts) <= {"true", "false"}


@dataclass(frozen=True)
class TrainingBaseline:
    """Profile and sample of a version's training rows, and its predictions on the holdout."""

    rows: int
    target: str
    columns: Mapping[str, NumericProfile | CategoryProfile]
    predictions: Mapping[str, int]  # rows of the holdout by the class that was predicted
    correct: int  # of them
    sample: pd.DataFrame

    @property
    def holdout_rows(self) -> int:
        """How many rows were held out."""
        return sum(self.predictions.values())

    @property
    def text_columns(self) -> list[str]:
        """The columns of text; the other categories are true and false."""
        return [
            name
            for name, profile in self.columns.items()
            if isinstance(profile, CategoryProfile) and not profile.is_boolean
        ]


def make_baseline(
    training: pd.DataFrame, target: str, predicted: npt.NDArray[Any], labels: npt.NDArray[Any]
) -> TrainingBaseline:
    """Return the baseline of a version.

    Parameters
    ----------
    training
        The features that it was trained on.
    target
        The label's name.
    predicted, labels
        Its predictions on the holdout and the correct labels, as names, shape (rows,).
    """
    names, counts = np.unique(predicted.astype(str), return_counts=True)
    sample = training
    if len(training) > _SAMPLE_ROWS:
        sample = training.sample(_SAMPLE_ROWS, random_state=0).sort_index()
    return TrainingBaseline(
        rows=len(training),
        target=target,
        columns={str(name): _profile(training[name]) for name in training.columns},
        predictions=dict(zip(names.tolist(), counts.tolist(), strict=True)),
        correct=int((predicted == labels).sum()),
        sample=sample.reset_index(drop=True),
    )


def is_numeric(values: pd.Series) -> bool:
    """Say whether a column holds numbers; true and false are categories."""
    return pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)


def _profile(values: pd.Series) -> NumericProfile | CategoryProfile:
    missing = int(values.isna().sum())
    if is_numeric(values):
        known = values.dropna().to_numpy(float)
        quantiles = np.quantile(known, _QUANTILES) if len(known) else np.empty(0)
        return NumericProfile(len(values), missing, tuple(quantiles.tolist()))
    counts = values.dropna().map(as_category).value_counts()
    kept = counts.iloc[:_MAX_CATEGORIES]
    return CategoryProfile(
        len(values),
        missing,
        {str(name): int(count) for name, count in kept.items()},
        int(counts.iloc[_MAX_CATEGORIES:].sum()),
    )


def as_category(value: object) -> str:
    """Return the name under which a value is counted."""
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    return str(value)


def write_baseline(folder: Path, baseline: TrainingBaseline) -> None:
    """Write both files."""
    content = {
        "rows": baseline.rows,
        "target": baseline.target,
        "columns": {name: asdict(column) for name, column in baseline.columns.items()},
        "predictions": dict(baseline.predictions),
        "correct": baseline.correct,
    }
    text = json.dumps(content, indent=1, ensure_ascii=False)
    (folder / PROFILE_FILE).write_text(text + "\n", encoding="utf-8")
    baseline.sample.to_parquet(folder / SAMPLE_FILE, index=False)


def read_baseline(folder: Path) -> TrainingBaseline | None:
    """Read both files; None if there are none.

    Raises
    ------
    VerificationError
        If they are not readable.
    """
    if not (folder / PROFILE_FILE).is_file() or not (folder / SAMPLE_FILE).is_file():
        return None
    try:
        content = json.loads((folder / PROFILE_FILE).read_text(encoding="utf-8"))
        sample = pd.read_parquet(folder / SAMPLE_FILE)
        columns = {str(name): _read_profile(each) for name, each in content["columns"].items()}
        _check_sample(sample, columns)
        predictions = {str(name): int(count) for name, count in content["predictions"].items()}
        correct = int(content["correct"])
        if not 0 <= correct <= sum(predictions.values()) or not sum(predictions.values()):
            raise ValueError("it has no holdout")
        return TrainingBaseline(
            int(content["rows"]), str(content["target"]), columns, predictions, correct, sample
        )
    # Whoever may write to the registry may write anything there.
    except (
        *(OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError),
        *(RecursionError, pa.ArrowException),
    ) as error:
        reason = first_line(error, 150)
        raise VerificationError(f"evidence/{PROFILE_FILE} is not readable: {reason}") from error


def _check_sample(sample: pd.DataFrame, columns: Mapping[str, NumericProfile | CategoryProfile]) -> None:
    if set(sample.columns) != set(columns):
        raise ValueError("sample and profile have different columns")
    if not len(sample):
        raise ValueError("the sample is empty")
    for name, column in columns.items():
        if isinstance(column, NumericProfile) and not (is_numeric(sample[name]) or sample[name].isna().all()):
            raise ValueError(f"column {name!r} holds numbers in the profile alone")


def _read_profile(content: Mapping[str, Any]) -> NumericProfile | CategoryProfile:
    if "quantiles" in content:
        quantiles = tuple(float(value) for value in content["quantiles"])
        return NumericProfile(int(content["rows"]), int(content["missing"]), quantiles)
    counts = {str(name): int(count) for name, count in content["counts"].items()}
    return CategoryProfile(int(content["rows"]), int(content["missing"]), counts, int(content["others"]))
