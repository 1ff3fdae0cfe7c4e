"""The paired comparison by any metric: its values, and how often it is wrong."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from registry_tools.stats import bootstrap
from registry_tools.stats.intervals import SIGNIFICANCE
from registry_tools.stats.losses import loss_difference
from registry_tools.stats.metric import METRICS, Outcomes, find_metric
from registry_tools.stats.metric_difference import MetricDifference
from registry_tools.stats.paired_metric import compare_by
from registry_tools.task import CLASSIFICATION, REGRESSION

Draw = Callable[[np.random.Generator, int, float], tuple[Outcomes, Outcomes]]


def numbers(rng: np.random.Generator, rows: int, worse: float = 1.0) -> tuple[Outcomes, Outcomes]:
    """Return two regressions with alike errors; the candidate's are `worse` times as large."""
    labels, shared, own, other = rng.standard_normal((4, rows))
    errors = [0.9 * shared + 0.436 * each for each in (own, other)]
    return Outcomes(labels, labels + worse * errors[0]), Outcomes(labels, labels + errors[1])


def classes(rng: np.random.Generator, rows: int, worse: float = 1.0) -> tuple[Outcomes, Outcomes]:
    """Return two classifiers with alike scores; a larger `worse` adds noise to the candidate's."""
    labels = np.where(rng.random(rows) < 0.4, "b", "a").astype(object)
    labels[:2] = ["a", "b"]
    shared, own, other = rng.standard_normal((3, rows))
    found = []
    for each, noise in ((own, worse), (other, 1.0)):
        score = np.where(labels == "b", 0.9, -0.9) + noise * (0.9 * shared + 0.436 * each)
        second = 1 / (1 + np.exp(-1.8 * score))
        predicted = np.where(score > 0, "b", "a").astype(object)
        found.append(Outcomes(labels, predicted, np.column_stack([1 - second, second]), ("a", "b")))
    return found[0], found[1]


def draw(metric: str) -> Draw:
    return numbers if any(each.name == metric and each.task == REGRESSION for each in METRICS) else classes


def task(metric: str) -> str:
    return REGRESSION if draw(metric) is numbers else CLASSIFICATION


def compared(metric: str, pair: tuple[Outcomes, Outcomes]) -> MetricDifference:
    found = compare_by(find_metric(metric, task(metric)), *pair)
    assert found is not None
    return found


ALL = [metric.name for metric in METRICS] + ["recall:b", "precision:b", "tests.support.metrics:agreement"]


@pytest.mark.parametrize("name", ALL)
def test_a_clear_difference_is_found_by_each_metric_and_has_its_direction(name: str) -> None:
    rng = np.random.default_rng(5)
    one, two = draw(name)(rng, 1_000, 2.0)
    worse, better = compared(name, (one, two)), compared(name, (two, one))
    assert worse.p_worse < 0.001 < 0.999 < worse.p_better
    assert better.p_better < 0.001
    assert worse.gain < 0 < better.gain
    assert worse.bound < worse.gain
    assert worse.low < worse.difference < worse.high
    assert (worse.high < 0) != worse.less_is_better
    assert (worse.low > 0) == worse.less_is_better


@pytest.mark.parametrize("name", ALL)
def test_two_equal_versions_are_neither_better_nor_worse(name: str) -> None:
    one, _ = draw(name)(np.random.default_rng(5), 40, 1.0)
    same = compared(name, (one, one))
    assert (same.difference, same.gain) == (0, 0)
    assert min(same.p_worse, same.p_better) >= 0.5
    assert same.low <= 0 <= same.high
    assert same.bound <= 0
    if task(name) == CLASSIFICATION and name != "log_loss":
        assert same.bound < -0.01  # 40 rows without a disagreement do not show that there is none


@pytest.mark.parametrize("name", ["f1_macro", "log_loss", "precision:b", "roc_auc", "average_precision"])
@pytest.mark.parametrize("count", [2, 4])
def test_a_replicate_has_the_metric_of_the_drawn_rows(name: str, count: int) -> None:
    rng = np.random.default_rng(1)
    names = tuple("abcd"[:count])
    labels = np.array(names, dtype=object)[rng.integers(count, size=60)]
    probabilities = np.round(rng.dirichlet(np.ones(count), 60), 1)  # many are equal
    predicted = np.array(names, dtype=object)[probabilities.argmax(axis=1)]
    check_replicates(name, Outcomes(labels, predicted, probabilities, names))


def test_a_replicate_has_the_median_of_the_drawn_rows() -> None:
    rng = np.random.default_rng(1)
    for rows in (20, 21):
        check_replicates("median_absolute_error", Outcomes(rng.random(rows), rng.random(rows)))


def check_replicates(name: str, outcomes: Outcomes) -> None:
    metric, rng = find_metric(name, task(name)), np.random.default_rng(0)
    found = bootstrap.replicate(metric, outcomes, outcomes)
    drawn = rng.integers(len(outcomes.labels), size=(bootstrap.REPLICATES, len(outcomes.labels)))
    expected = [metric.compute(outcomes.take(rows)) for rows in drawn[:30]]
    assert found[:30, 0] == pytest.approx(np.array(expected), nan_ok=True)
    assert found[:, 0] == pytest.approx(found[:, 1], nan_ok=True)


def test_a_champion_without_an_error_is_no_unit() -> None:
    labels = np.arange(30.0)
    perfect, off = Outcomes(labels, labels), Outcomes(labels, labels + 1)
    for name in ("rmse", "mae", "median_absolute_error"):
        worse = compared(name, (off, perfect))
        assert (worse.gain, worse.p_worse < SIGNIFICANCE) == (-1.0, True)
        assert np.isfinite([worse.low, worse.high, worse.bound]).all()
        assert compared(name, (perfect, perfect)).bound == 0
        assert worse.low <= worse.difference == 1 <= worse.high


def test_the_limits_of_a_ratio_are_where_students_test_rejects() -> None:
    rng = np.random.default_rng(2)
    one, two = rng.gamma(2.0, size=(2, 50))
    found = loss_difference(one, two, two)
    for limit in (found.low, found.high):
        rest = one - two - limit * two
        statistic = rest.mean() / (rest.std(ddof=1) / np.sqrt(50))
        assert abs(statistic) == pytest.approx(2.0096, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "rows", "most"),
    [
        *((name, rows, 0.07) for name in ("rmse", "mae", "r2") for rows in (30, 300)),
        *(
            (name, rows, 0.08)
            for name in ("roc_auc", "median_absolute_error", "f1_macro", "balanced_accuracy")
            for rows in (30, 300)
        ),
    ],
)
def test_equal_versions_are_called_better_or_worse_in_about_5_percent(
    name: str, rows: int, most: float
) -> None:
    simulations = 1_000 if draw(name) is numbers and most == 0.07 else 250
    rng = np.random.default_rng(rows)
    found = [compared(name, draw(name)(rng, rows, 1.0)) for _ in range(simulations)]
    assert np.mean([each.p_worse < SIGNIFICANCE for each in found]) <= most
    assert np.mean([each.p_better < SIGNIFICANCE for each in found]) <= most
    assert np.mean([each.low <= 0 <= each.high for each in found]) >= 0.92


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rmse", "mae"])
@pytest.mark.parametrize("rows", [30, 300, 3_000])
def test_a_version_that_is_worse_by_the_margin_passes_non_inferior_in_about_5_percent(
    name: str, rows: int
) -> None:
    rng = np.random.default_rng(rows)
    found = [compared(name, numbers(rng, rows, 1.01)) for _ in range(1_000)]
    assert np.mean([each.bound > -0.01 for each in found]) <= 0.07
