"""What a version's rows of now are like beside its reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.monitoring import drift_tests
from pipeline.monitoring.drift_tests import Test
from pipeline.monitoring.labels import LabelledPredictions
from pipeline.monitoring.window import Window, counted
from pipeline.training.baseline import Numbers, TrainingBaseline, as_category, is_numeric
from registry_tools.stats.intervals import Estimate, wilson

_JOINT_ROWS = 5000  # that the classifier is shown of each side
_MOST_PARTS, _PART_ROWS = 10, 50
_OTHERS = "\x00others"  # no category: all that a profile does not name


@dataclass(frozen=True)
class Feature:
    """One feature, then and now."""

    name: str
    is_number: bool
    psi: float
    psi_over_time: tuple[float, ...]  # of equal parts of the window, in the order of the rows
    missing_before: float  # shares
    missing: float
    unseen: int | None  # rows of categories that the training rows did not have; None of numbers


@dataclass(frozen=True)
class Accuracy:
    """How many answers are right, with 95% intervals by Wilson."""

    rows: int
    live: Estimate
    promoted_rows: int
    promoted: Estimate
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Analysis:
    """What was found of one version."""

    version: int
    rows: int
    needed: int
    shift: float  # of one feature, in standard deviations, that so many rows would show
    alpha: float
    tests: tuple[Test, ...]
    features: tuple[Feature, ...]
    accuracy: Accuracy | None
    predictions_before: Mapping[str, int]
    predictions: Mapping[str, int]  # empty where none are known

    @property
    def is_enough(self) -> bool:
        """Whether there were enough rows to say anything."""
        return self.rows >= self.needed

    @property
    def found(self) -> list[Test]:
        """The tests that show drift, the clearest first; after those that name where it is."""
        shown = [test for test in self.tests if test.adjusted < self.alpha]
        return sorted(shown, key=lambda t: (t.kind == drift_tests.CLASSIFIER, t.adjusted))

    @property
    def has_drift(self) -> bool:
        """Whether there is any."""
        return bool(self.found)

    @property
    def has_fallen(self) -> bool:
        """Whether the live accuracy is below that of the promotion."""
        return any(test.kind == drift_tests.FALLEN for test in self.found)

    def where(self) -> str:
        """Say in some words where the drift is."""
        subjects = dict.fromkeys(test.subject for test in self.found)
        return ", ".join(subjects)

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        return asdict(self) | {
            "verdict": self.verdict(),
            "where": list(dict.fromkeys(test.subject for test in self.found)),
        }

    def verdict(self) -> str:
        """Return `drift`, `none`, or `unknown` where there were too few rows."""
        if not self.is_enough:
            return "unknown"
        return "drift" if self.has_drift else "none"


def analyse(
    version: int,
    baseline: TrainingBaseline,
    window: Window,
    live: LabelledPredictions | None,
    needed: int,
    alpha: float,
) -> Analysis:
    """Compare a window with the reference of the version that answered it.

    Parameters
    ----------
    version, baseline, window
        What is compared with what.
    live
        The answers whose labels are known.
    needed
        With fewer rows nothing is tested.
    alpha
        How often at most drift is told of where there is none.
    """
    predictions = counted(window.predictions)[0] if window.predictions is not None else {}
    accuracy = _accuracy(baseline, live) if live is not None and live.rows else None
    tests: list[Test] = []
    features: list[Feature] = []
    if window.rows >= needed:
        for name in baseline.columns:
            feature, shown = _feature(name, baseline, window)
            features.append(feature)
            tests += shown
        tests += _of_all(baseline, window, predictions, live)
    shift = drift_tests.shift_found(
        max(window.rows, needed),
        len(baseline.sample),
        len(tests) or len(baseline.columns) + 2,
        alpha,
    )
    return Analysis(
        version=version,
        rows=window.rows,
        needed=needed,
        shift=shift,
        alpha=alpha,
        tests=tuple(drift_tests.corrected(tests)),
        features=tuple(features),
        accuracy=accuracy,
        predictions_before=dict(baseline.predictions),
        predictions=dict(sorted(predictions.items())),
    )


def _of_all(
    baseline: TrainingBaseline,
    window: Window,
    predictions: Mapping[str, int],
    live: LabelledPredictions | None,
) -> list[Test]:
    both = (baseline.sample, window.sample(_JOINT_ROWS))
    found = [
        drift_tests.categories(baseline.predictions, predictions, drift_tests.PREDICTIONS),
        drift_tests.together(*(_alike(each, baseline) for each in both)),
    ]
    if live is not None:
        found.append(
            drift_tests.accuracy((baseline.right, baseline.holdout_rows), (live.right, live.rows))
        )
    return [test for test in found if test is not None]


def _alike(rows: pd.DataFrame, baseline: TrainingBaseline) -> pd.DataFrame:
    """Return rows with numbers as such and categories by their names, however they were stored."""
    columns = {}
    for name, profile in baseline.columns.items():
        values = rows[name]
        if isinstance(profile, Numbers):
            columns[name] = pd.to_numeric(values, errors="coerce").astype("float64")
        else:
            if profile.is_boolean and is_numeric(values):
                values = values.map({0: False, 1: True})
            known = values.astype(object).where(values.notna(), None)
            columns[name] = known.map(as_category, na_action="ignore")
    return pd.DataFrame(columns)


def _feature(name: str, baseline: TrainingBaseline, window: Window) -> tuple[Feature, list[Test]]:
    profile = baseline.columns[name]
    if isinstance(profile, Numbers):
        values = window.numbers(name)
        before = baseline.sample[name].to_numpy(float, na_value=np.nan)
        missing, unseen = int(np.isnan(values).sum()), None
        shown = drift_tests.numbers(before, values, name)
        edges = np.unique(profile.quantiles[1:-1])
        expected = _binned(before, edges)
        stability = drift_tests.psi(expected, _binned(values, edges))
        over_time = [
            drift_tests.psi(expected, _binned(part, edges))
            for part in np.array_split(values, _parts(window.rows))
        ]
    else:
        counts, missing = window.counts(name, profile.is_boolean)
        known = {**profile.counts, **({_OTHERS: profile.others} if profile.others else {})}
        unseen = sum(count for category, count in counts.items() if category not in profile.counts)
        unseen = None if profile.others else unseen
        counts = _with_others(counts, known)
        # Which of more categories than a profile names are the commonest is of its rows alone.
        shown = None if profile.others else drift_tests.categories(known, counts, name)
        stability = _psi_of_counts(known, counts)
        sizes = [len(part) for part in np.array_split(np.empty(window.rows), _parts(window.rows))]
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        over_time = [
            _psi_of_counts(
                known,
                _with_others(window.part(int(s), size).counts(name, profile.is_boolean)[0], known),
            )
            for s, size in zip(starts, sizes, strict=True)
        ]
    holes = drift_tests.missing((profile.missing, profile.rows), (missing, window.rows), name)
    feature = Feature(
        name,
        isinstance(profile, Numbers),
        stability,
        tuple(over_time),
        profile.missing / max(profile.rows, 1),
        missing / max(window.rows, 1),
        unseen,
    )
    return feature, [test for test in (shown, holes) if test is not None]


def _parts(rows: int) -> int:
    return max(1, min(_MOST_PARTS, rows // _PART_ROWS))


def _binned(
    values: npt.NDArray[np.float64], edges: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    known = values[~np.isnan(values)]
    return np.bincount(np.searchsorted(edges, known, side="right"), minlength=len(edges) + 1)


def _with_others(counts: Mapping[str, int], known: Mapping[str, int]) -> dict[str, int]:
    """Put what a profile does not name under its others, if it has some."""
    if _OTHERS not in known:
        return dict(counts)
    named = {category: count for category, count in counts.items() if category in known}
    return named | {_OTHERS: sum(counts.values()) - sum(named.values())}


def _psi_of_counts(before: Mapping[str, int], now: Mapping[str, int]) -> float:
    names = sorted({*before, *now})
    return drift_tests.psi(*(np.array([side.get(n, 0) for n in names]) for side in (before, now)))


def _accuracy(baseline: TrainingBaseline, live: LabelledPredictions) -> Accuracy:
    return Accuracy(
        live.rows,
        wilson(live.right, live.rows),
        baseline.holdout_rows,
        wilson(baseline.right, baseline.holdout_rows),
        live.notes,
    )
