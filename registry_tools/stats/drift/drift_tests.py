"""Test the current window against the training baseline, with p-values corrected by Holm.

Each test takes plain arrays or counts and returns a `DriftTest`, or None if the data allow no test.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats
from sklearn.linear_model import LogisticRegression

from registry_tools.stats.multiple_testing import holm

Floats = npt.NDArray[np.float64]
Counts = Mapping[str, int]  # rows by category
Part = tuple[int, int]  # the number of rows with a property, and of all rows

ALL_FEATURES = "all features together"
PREDICTIONS = "predictions"
MISSING, CLASSIFIER = "missing values", "classifier"
FALLEN, PERMUTATION = "Fisher, one-sided", "permutation, one-sided"  # of the live metric
# The chi-squared test needs an expected count of 5 in each cell; rarer categories are pooled.
_MIN_EXPECTED = 5
_FEW_VALUES = 10  # a numeric feature with at most so many different values is tested by its counts
_PAIRS = 50  # products of two features that the classifier gets in addition to the features
_CATEGORIES = 10  # categories of one feature that the classifier gets as indicators
_POWER = 0.8
# Efficiency of a Kolmogorov-Smirnov test relative to a t-test, for a shift of normal values.
_KS_EFFICIENCY = 0.64


@dataclass(frozen=True)
class DriftTest:
    """The result of one test against the training baseline."""

    target: str  # a feature, `ALL_FEATURES`, `PREDICTIONS`, or the live metric, such as `live accuracy`
    kind: str
    statistic: float
    p_value: float
    adjusted_p_value: float = math.nan  # by Holm, over all tests of a version


def ks_test(baseline: Floats, current: Floats, feature: str) -> DriftTest | None:
    """Test a numeric feature with the two-sample Kolmogorov-Smirnov test.

    The test has little power for a few different values, such as 0 and 1. Such a feature is tested by
    its counts instead (`chi_squared_test`).

    Parameters
    ----------
    baseline, current
        Values, shape (rows,); NaN marks a missing value and is left out.
    feature
        The name of the feature.

    Returns
    -------
    The test, or None if one side has no values.
    """
    baseline, current = baseline[~np.isnan(baseline)], current[~np.isnan(current)]
    if not len(baseline) or not len(current):
        return None
    if len(np.unique(np.concatenate([baseline, current]))) <= _FEW_VALUES:
        sides = (np.unique(side, return_counts=True) for side in (baseline, current))
        before, now = ({str(value): int(n) for value, n in zip(*side, strict=True)} for side in sides)
        return chi_squared_test(before, now, feature)
    small = max(len(baseline), len(current)) <= 2000
    found = stats.ks_2samp(baseline, current, method="auto" if small else "asymp")
    return DriftTest(feature, "Kolmogorov-Smirnov", float(found.statistic), float(found.pvalue))


def chi_squared_test(baseline: Counts, current: Counts, target: str) -> DriftTest | None:
    """Test how often each category occurs, with a chi-squared test.

    Two categories, one of them rare, are compared with Fisher's exact test. The statistic is Cramér's
    V, from 0 (equal shares) to 1.

    Parameters
    ----------
    baseline, current
        Rows by category.
    target
        The name of the feature, or `PREDICTIONS`.

    Returns
    -------
    The test, or None if all rows have one category or one side has no rows.
    """
    table = _contingency_table(baseline, current)
    if table is None:
        return None
    found = stats.chi2_contingency(table, correction=False)
    p_value, kind = float(found.pvalue), "chi-squared"
    if table.shape[1] == 2 and found.expected_freq.min() < _MIN_EXPECTED:
        p_value, kind = float(stats.fisher_exact(table).pvalue), "Fisher's exact"
    return DriftTest(target, kind, math.sqrt(found.statistic / table.sum()), p_value)


def _contingency_table(baseline: Counts, current: Counts) -> npt.NDArray[np.int64] | None:
    """Return the counts as a table, shape (2, categories), with the rare categories pooled.

    If all categories are rare, the most frequent one keeps its own column: with every category pooled,
    the two sides could not differ.
    """
    names = sorted({*baseline, *current})
    table = np.array([[side.get(name, 0) for name in names] for side in (baseline, current)], np.int64)
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2 or (table.sum(axis=1) == 0).any():
        return None
    share = table.sum(axis=1).min() / table.sum()
    rare = table.sum(axis=0) * share < _MIN_EXPECTED
    if rare.all():
        rare[int(table.sum(axis=0).argmax())] = False
    if not rare.any():
        return table
    kept, pooled = table[:, ~rare], table[:, rare].sum(axis=1, keepdims=True)
    if kept.shape[1] > 1 and pooled.sum() * share < _MIN_EXPECTED:
        kept[:, [int(kept.sum(axis=0).argmin())]] += pooled
        return kept
    return np.hstack([kept, pooled])


def missing_values_test(baseline: Part, current: Part, feature: str) -> DriftTest | None:
    """Test whether the share of missing values changed.

    Parameters
    ----------
    baseline, current
        The number of missing values, and the number of rows.
    feature
        The name of the feature.

    Returns
    -------
    The test, or None if no value is missing or one side has no rows.
    """
    table = np.array([[gone, rows - gone] for gone, rows in (baseline, current)])
    if not table[:, 0].any() or (table.sum(axis=1) == 0).any():
        return None
    rare = table.sum(axis=0).min() * table.sum(axis=1).min() / table.sum() < _MIN_EXPECTED
    found = stats.fisher_exact(table) if rare else stats.chi2_contingency(table)
    shares = table[:, 0] / table.sum(axis=1)
    return DriftTest(feature, MISSING, float(shares[1] - shares[0]), float(found.pvalue))


def share_test(promoted: Part, live: Part, target: str = "live accuracy") -> DriftTest | None:
    """Test whether a live share of rows is lower than the share on the holdout (Fisher, one-sided).

    Parameters
    ----------
    promoted, live
        The number of correct predictions, and the number of rows.
    target
        The name of the live metric.

    Returns
    -------
    The test, or None if one side has no rows.
    """
    table = [[correct, rows - correct] for correct, rows in (promoted, live)]
    if not promoted[1] or not live[1]:
        return None
    found = stats.fisher_exact(table, alternative="greater")
    fallen = promoted[0] / promoted[1] - live[0] / live[1]
    return DriftTest(target, FALLEN, fallen, float(found.pvalue))


def joint_test(baseline: pd.DataFrame, current: pd.DataFrame, seed: int = 0) -> DriftTest | None:
    """Test whether a classifier can separate the current rows from the baseline.

    A logistic regression learns from one half of the rows. It gets the features, and the products of
    two features that differ most, so that it also finds a changed correlation. The Mann-Whitney test
    then decides on the other half whether the classifier is better than chance. The statistic is the
    area under the ROC curve.

    Parameters
    ----------
    baseline, current
        Rows with the same columns, shape (rows, columns); numbers or text.
    seed
        The seed that divides the rows into halves.

    Returns
    -------
    The test, or None if one side has fewer than 20 rows or no column varies.
    """
    if min(len(baseline), len(current)) < 20 or not len(baseline.columns):
        return None
    encoded = _encode(pd.concat([baseline, current], ignore_index=True))
    is_current = np.arange(len(encoded)) >= len(baseline)
    learning = np.zeros(len(encoded), bool)
    random = np.random.default_rng(seed)
    for side in (False, True):
        rows = random.permutation(np.flatnonzero(is_current == side))
        learning[rows[: len(rows) // 2]] = True
    first, second = _differing_pairs(encoded[learning], is_current[learning])
    features = np.hstack([encoded, encoded[:, first] * encoded[:, second]])
    spread = features[learning].std(axis=0)
    features = features[:, spread > 0] / spread[spread > 0]
    if not features.shape[1]:
        return None
    classifier = LogisticRegression(C=0.1, class_weight="balanced", max_iter=300)
    classifier.fit(features[learning], is_current[learning])
    scores = classifier.decision_function(features[~learning])
    current_scores, baseline_scores = scores[is_current[~learning]], scores[~is_current[~learning]]
    found = stats.mannwhitneyu(current_scores, baseline_scores, alternative="greater", method="asymptotic")
    area = float(found.statistic) / (len(current_scores) * len(baseline_scores))
    return DriftTest(ALL_FEATURES, CLASSIFIER, area, float(found.pvalue))


def _encode(rows: pd.DataFrame) -> Floats:
    """Return a matrix, shape (rows, encoded columns), for the classifier.

    A number becomes the normal score of its rank. Categories and missing values become indicators.
    """
    columns: list[Floats] = []
    for name in rows.columns:
        values = rows[name]
        missing = values.isna().to_numpy()
        if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
            ranks = values.rank().to_numpy(float)
            columns.append(np.nan_to_num(stats.norm.ppf((ranks - 0.5) / max(values.count(), 1))))
        else:
            text = values.astype(str).where(~missing)
            for category in text.value_counts().index[:_CATEGORIES]:
                columns.append(_standardise((text == category).to_numpy(float)))
        if missing.any():
            columns.append(_standardise(missing.astype(float)))
    return np.column_stack(columns)


def _standardise(values: Floats) -> Floats:
    return (values - values.mean()) / (values.std() or 1.0)


def _differing_pairs(
    encoded: Floats, is_current: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the two positions of each pair of columns whose products differ most between the sides."""
    current, baseline = encoded[is_current], encoded[~is_current]
    difference = np.abs(current.T @ current / len(current) - baseline.T @ baseline / len(baseline))
    first, second = np.triu_indices(encoded.shape[1], 1)
    most = np.argsort(-difference[first, second], kind="stable")[:_PAIRS]
    return first[most], second[most]


def holm_correction(tests: Sequence[DriftTest]) -> list[DriftTest]:
    """Return the tests with their p-values corrected together, by the method of Holm."""
    adjusted = holm([test.p_value for test in tests])
    return [replace(test, adjusted_p_value=p) for test, p in zip(tests, adjusted, strict=True)]


def detectable_shift(rows: int, baseline_rows: int, tests: int, alpha: float) -> float:
    """Return the shift of one feature, in standard deviations, that the tests find in 80% of windows.

    Parameters
    ----------
    rows, baseline_rows
        The number of rows of the window, and of the baseline sample.
    tests
        The number of tests that are corrected together.
    alpha
        The significance level of all tests together.
    """
    quantiles = stats.norm.ppf(1 - alpha / (2 * max(tests, 1))) + stats.norm.ppf(_POWER)
    effective = _KS_EFFICIENCY * rows * baseline_rows / (rows + baseline_rows)
    return float(quantiles / math.sqrt(effective))
