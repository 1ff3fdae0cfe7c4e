"""Compare the current window of a version with its training baseline.

The module runs the drift tests of each feature, of all features together, of the predictions and of
the live performance, and corrects their p-values together. It reads no files and calls no MLflow.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from pipeline.monitoring.data.labels import LabelledPredictions
from pipeline.monitoring.data.window import CurrentWindow
from pipeline.monitoring.performance import LivePerformance, compare_live
from pipeline.training.baseline import CategoryProfile, NumericProfile, TrainingBaseline, numeric_profile
from registry_tools.stats.drift import drift_tests
from registry_tools.stats.drift.drift_tests import DriftTest
from registry_tools.stats.drift.psi import psi_of_categories, psi_of_numbers
from registry_tools.task import CLASSIFICATION

_JOINT_ROWS = 5000  # rows of the window that the joint test reads at most
_MAX_PARTS, _PART_ROWS = 10, 50  # PSI over time: at most so many parts, each of at least so many rows


@dataclass(frozen=True)
class FeatureDrift:
    """Drift of one feature between training baseline and current window."""

    name: str
    is_numeric: bool
    psi: float
    psi_over_time: tuple[float, ...]  # of equal parts of the window, in the order of the rows
    baseline_missing: float  # share of the rows, 0 to 1
    current_missing: float  # share of the rows, 0 to 1
    unseen_rows: int | None  # rows with a category that no training row had; None for numbers


@dataclass(frozen=True)
class Analysis:
    """The result of comparing the current window with the baseline of one version."""

    version: int
    rows: int
    min_rows: int
    detectable_shift: float  # shift of one feature, in standard deviations, found in 80% of such windows
    alpha: float
    tests: tuple[DriftTest, ...]
    features: tuple[FeatureDrift, ...]
    performance: LivePerformance | None
    baseline_predictions: Mapping[str, int] | NumericProfile
    # Rows by predicted class, or the profile of the predicted numbers; empty without predictions.
    predictions: Mapping[str, int] | NumericProfile

    @property
    def is_enough(self) -> bool:
        """Whether the window has enough rows to test."""
        return self.rows >= self.min_rows

    @property
    def significant_tests(self) -> list[DriftTest]:
        """The tests that show drift, smallest p-value first.

        The joint test comes last, because it names no feature.
        """
        significant = [test for test in self.tests if test.adjusted_p_value < self.alpha]
        return sorted(significant, key=lambda t: (t.kind == drift_tests.CLASSIFIER, t.adjusted_p_value))

    @property
    def has_drift(self) -> bool:
        """Whether at least one test shows drift."""
        return bool(self.significant_tests)

    @property
    def has_worsened(self) -> bool:
        """Whether the metric of the version is significantly worse than at promotion."""
        return any(
            test.kind in {drift_tests.FALLEN, drift_tests.PERMUTATION} for test in self.significant_tests
        )

    def targets(self) -> list[str]:
        """Return the targets of the significant tests, each once."""
        return list(dict.fromkeys(test.target for test in self.significant_tests))

    def where(self) -> str:
        """Return the targets of the significant tests, separated by commas."""
        return ", ".join(self.targets())

    def as_dict(self) -> dict[str, Any]:
        """Return the analysis as plain values, for JSON."""
        return asdict(self) | {"verdict": self.verdict(), "where": self.targets()}

    def verdict(self) -> str:
        """Return `drift`, `none`, or `unknown` if the window has too few rows."""
        if not self.is_enough:
            return "unknown"
        return "drift" if self.has_drift else "none"

    def summary(self) -> str:
        """Return one sentence that states the result."""
        shift = f"a shift of {self.detectable_shift:.1f} sd"
        if not self.is_enough:
            return f"{self.rows} rows, too few to test: {self.min_rows} are needed, which find {shift}"
        if not self.has_drift:
            return f"{self.rows} rows: no drift ({shift} would be detected)"
        clearest = self.significant_tests[0]
        return (
            f"{self.rows} rows: drift in {self.where()}; the clearest is {clearest.target}: "
            f"{clearest.kind} {clearest.statistic:.2f}, corrected p {clearest.adjusted_p_value:.1g}"
        )


def analyse_window(
    version: int,
    baseline: TrainingBaseline,
    window: CurrentWindow,
    live: LabelledPredictions | None,
    min_rows: int,
    alpha: float,
) -> Analysis:
    """Compare a window with the baseline of the version that predicted it.

    Parameters
    ----------
    version
        The number of the version.
    baseline
        Its training baseline.
    window
        The production data that it predicted.
    live
        The predictions that have a label, or None if the user gave no labels.
    min_rows
        A window with fewer rows is not tested; its verdict is `unknown`.
    alpha
        The largest accepted probability of a false alarm, over all tests together.
    """
    before, current, prediction_test = _compare_predictions(baseline, window)
    performance, live_test = compare_live(baseline, live) if live is not None and live.rows else (None, None)
    tests: list[DriftTest] = []
    features: list[FeatureDrift] = []
    if window.rows >= min_rows:
        joint: tuple[dict[str, pd.Series], dict[str, pd.Series]] = {}, {}
        few = min(window.rows, _JOINT_ROWS)
        drawn = np.sort(np.random.default_rng(0).choice(window.rows, few, replace=False))
        for name, profile in baseline.columns.items():
            sides = baseline.sample_column(name), window.column(name, profile)
            feature, feature_tests = _analyse_feature(name, profile, *sides)
            if name in baseline.times:  # later dates and times are no drift
                tests += [test for test in feature_tests if test.kind == drift_tests.MISSING]
                continue
            features.append(feature)
            tests += feature_tests
            joint[0][name], joint[1][name] = sides[0], sides[1].iloc[drawn]
        more = (prediction_test, drift_tests.joint_test(*map(pd.DataFrame, joint)), live_test)
        tests += [test for test in more if test is not None]
    detectable_shift = drift_tests.detectable_shift(
        max(window.rows, min_rows), len(baseline.sample), len(tests) or len(baseline.columns) + 2, alpha
    )
    return Analysis(
        version=version,
        rows=window.rows,
        min_rows=min_rows,
        detectable_shift=detectable_shift,
        alpha=alpha,
        tests=tuple(drift_tests.holm_correction(tests)),
        features=tuple(features),
        performance=performance,
        baseline_predictions=before,
        predictions=current,
    )


def _compare_predictions(
    baseline: TrainingBaseline, window: CurrentWindow
) -> tuple[Mapping[str, int] | NumericProfile, Mapping[str, int] | NumericProfile, DriftTest | None]:
    """Return the predictions on the holdout, those of the window, and the test of their drift."""
    if baseline.task == CLASSIFICATION:
        names = [] if window.predictions is None else window.predictions.drop_null().to_pylist()
        counts = dict(sorted(Counter(names).items()))
        test = drift_tests.chi_squared_test(baseline.predictions, counts, drift_tests.PREDICTIONS)
        return baseline.predictions, counts, test
    before = baseline.outcomes.predicted
    if window.predictions is None:
        return numeric_profile(before), {}, None
    current = window.predicted_numbers()
    test = drift_tests.ks_test(before, current, drift_tests.PREDICTIONS)
    return numeric_profile(before), numeric_profile(current), test


def _analyse_feature(
    name: str, profile: NumericProfile | CategoryProfile, sample: pd.Series, current: pd.Series
) -> tuple[FeatureDrift, list[DriftTest]]:
    divided = np.array_split(np.arange(len(current)), max(1, min(_MAX_PARTS, len(current) // _PART_ROWS)))
    whole_and_parts = current, *(current.iloc[rows] for rows in divided)
    unseen: int | None = None
    if isinstance(profile, NumericProfile):
        distribution_test = drift_tests.ks_test(sample.to_numpy(), current.to_numpy(), name)
        edges = np.unique(profile.quantiles[1:-1])
        stability, *over_time = (psi_of_numbers(sample, p, edges) for p in whole_and_parts)
    else:
        counts = current.value_counts().to_dict()
        if not profile.others:
            unseen = sum(count for category, count in counts.items() if category not in profile.counts)
        # The profile names only its most frequent categories. Chance decides which those are, so a
        # test against other rows would raise false alarms.
        known, others = profile.counts, profile.others
        distribution_test = None if others else drift_tests.chi_squared_test(known, counts, name)
        parts = (p.value_counts().to_dict() for p in whole_and_parts)
        stability, *over_time = (psi_of_categories(known, others, p) for p in parts)
    sides = (profile.missing, profile.rows), (int(current.isna().sum()), len(current))
    tests = distribution_test, drift_tests.missing_values_test(*sides, name)
    before, now = (gone / max(rows, 1) for gone, rows in sides)
    is_number = isinstance(profile, NumericProfile)
    feature = FeatureDrift(name, is_number, stability, tuple(over_time), before, now, unseen)
    return feature, [test for test in tests if test is not None]
