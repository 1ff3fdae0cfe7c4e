"""Log loss: the values of scikit-learn, intervals above zero, and that 95% means about 95%."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from sklearn import metrics

from registry_tools.stats.intervals import Estimate
from registry_tools.stats.losses import RowLosses, mean_log_loss, row_losses
from registry_tools.stats.metric import Outcomes, find_metric
from registry_tools.stats.metric_difference import MetricDifference
from registry_tools.stats.paired_metric import compare_by
from registry_tools.task import CLASSIFICATION

CLASSES = ("a", "b", "c")
LOG_LOSS = find_metric("log_loss", CLASSIFICATION)


def outcomes_of(
    labels: np.ndarray, probabilities: np.ndarray, classes: tuple[str, ...] = ("no", "yes")
) -> Outcomes:
    return Outcomes(labels, labels, probabilities, classes)


def losses_of(outcomes: Outcomes) -> RowLosses:
    found = row_losses(outcomes)
    assert found is not None
    return found


def compare(first: Outcomes, second: Outcomes) -> MetricDifference:
    found = compare_by(LOG_LOSS, first, second)
    assert found is not None
    return found


def draw(rng: np.random.Generator, rows: int, sureness: float = 1.0) -> tuple[Outcomes, Outcomes]:
    """Return a calibrated version of two classes, and one that is surer of itself."""
    odds = rng.normal(2, 2, rows)
    labels = np.where(rng.random(rows) < expit(odds), "yes", "no")
    noisy = (odds + rng.normal(0, 0.5, rows), sureness * odds + rng.normal(0, 0.5, rows))
    first, second = (outcomes_of(labels, np.column_stack([expit(-s), expit(s)])) for s in noisy)
    return first, second


def coverage(found: list[Estimate] | list[MetricDifference], true: float) -> float:
    return float(np.mean([each.low <= true <= each.high for each in found]))


def test_the_mean_is_that_of_scikit_learn_whatever_the_order_of_the_classes() -> None:
    rng = np.random.default_rng(3)
    labels = rng.choice(CLASSES, 200)
    sure = 0.8 * (labels[:, None] == np.array(CLASSES)) + 0.2 / 3
    found = losses_of(outcomes_of(labels, sure[:, ::-1], CLASSES[::-1]))
    assert mean_log_loss(found).value == pytest.approx(metrics.log_loss(labels, sure, labels=CLASSES))
    assert found.cost == pytest.approx(-np.log(1 - (0.8 + 0.2 / 3)))


def test_an_interval_never_reaches_below_zero_nor_is_empty() -> None:
    labels = np.array(["yes"] * 30)
    for given in (np.full(30, 1.0), np.r_[0.001, np.full(29, 0.999)], np.full(30, 0.9), np.zeros(30)):
        interval = mean_log_loss(losses_of(outcomes_of(labels, np.column_stack([1 - given, given]))))
        assert 0 <= interval.low <= interval.value < interval.high


@pytest.mark.parametrize("rows", [10, 30, 300])
def test_a_mean_log_loss_is_covered(rows: int) -> None:
    rng = np.random.default_rng(rows)
    true = LOG_LOSS.compute(draw(np.random.default_rng(0), 1_000_000)[0])
    inside = coverage([mean_log_loss(losses_of(draw(rng, rows)[0])) for _ in range(1_000)], true)
    assert 0.95 - 0.021 <= inside <= 0.99


@pytest.mark.parametrize(("rows", "sureness"), [(30, 1.0), (300, 1.3)])
def test_a_difference_of_log_losses_is_covered(rows: int, sureness: float) -> None:
    rng = np.random.default_rng(rows)
    true = 0.0
    if sureness != 1:
        first, second = draw(np.random.default_rng(0), 1_000_000, sureness)
        true = LOG_LOSS.compute(first) - LOG_LOSS.compute(second)
    inside = coverage([compare(*draw(rng, rows, sureness)) for _ in range(1_000)], true)
    assert 0.95 - 0.021 <= inside <= 0.99


def test_the_p_value_is_below_five_percent_where_the_interval_excludes_zero() -> None:
    rng = np.random.default_rng(7)
    excluded = 0
    for _ in range(300):
        found = compare(*draw(rng, 100, 1.6))
        assert (found.p_value < 0.05) is not (found.low <= 0 <= found.high)
        excluded += found.p_value < 0.05
    assert 10 < excluded < 290


def test_a_version_that_is_surer_is_not_called_better_before_it_was_wrong() -> None:
    # All rows right: the surer version has the lower loss on each, and would pay more for a mistake.
    labels, sure = np.array(["yes"] * 20), np.linspace(0.99, 0.999, 20)
    unsure = sure - 0.05
    found = compare(*(outcomes_of(labels, np.column_stack([1 - p, p])) for p in (sure, unsure)))
    assert found.difference < 0 < found.high
    assert found.p_value > 0.05


def test_a_champion_with_a_loss_of_zero_is_compared_like_any_other() -> None:
    labels = np.array(["no", "yes"] * 20)
    certain = (labels[:, None] == np.array(["no", "yes"])).astype(float)
    perfect, nearly = (outcomes_of(labels, np.abs(certain - doubt)) for doubt in (0.0, 2**-52))
    unsure = outcomes_of(labels, np.abs(certain - 0.05))
    found, close = compare(unsure, perfect), compare(unsure, nearly)
    assert (found.gain, found.bound) == (-1, -1)
    # A mistake would cost the certain version more, so it is not significantly better.
    assert found.low < 0 < found.high
    assert found.p_worse == pytest.approx(close.p_worse, abs=0.01)
    assert found.high == pytest.approx(close.high, rel=0.01)


def test_the_same_probabilities_differ_by_nothing() -> None:
    first, _ = draw(np.random.default_rng(1), 50)
    found = compare(first, first)
    assert (found.difference, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_a_label_that_is_no_class_or_a_probability_that_is_no_number_has_no_loss() -> None:
    labels = np.array(["a", "b"])
    for probabilities, classes in (
        (np.full((2, 2), np.nan), ("a", "b")),
        (np.array([[1, 0], [np.inf, 1]]), ("a", "b")),
        (np.eye(2), ("a", "z")),
    ):
        outcomes = outcomes_of(labels, probabilities, classes)
        assert row_losses(outcomes) is None
        assert compare_by(LOG_LOSS, outcomes, outcomes) is None
