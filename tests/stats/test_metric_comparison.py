"""Metrics of two versions on the same rows: their values, and how often equal ones are told apart."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import binomtest
from sklearn import metrics

from registry_tools.stats.metric import Outcomes
from registry_tools.stats.metric_comparison import MetricComparison, compare_metrics
from tests.support.constants import LONG

CLASSES = np.array(["a", "b", "c"])
Given = tuple[np.ndarray, np.ndarray, np.ndarray]


def compare(
    labels: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    probabilities: tuple[np.ndarray, np.ndarray] | tuple[None, None] = (None, None),
    classes: tuple[str, ...] = (),
) -> list[MetricComparison]:
    one, two = (
        Outcomes(labels, predicted, given, classes)
        for predicted, given in zip((first, second), probabilities, strict=True)
    )
    return compare_metrics(one, two)


def predict(rng: np.random.Generator, labels: np.ndarray, accuracy: float) -> np.ndarray:
    return np.where(rng.random(len(labels)) < accuracy, labels, rng.choice(CLASSES, len(labels)))


@pytest.fixture(scope="module")
def found() -> tuple[dict[str, MetricComparison], Given]:
    rng = np.random.default_rng(1)
    labels = rng.choice(CLASSES, 500)
    given = (labels, predict(rng, labels, 0.9), predict(rng, labels, 0.6))
    return {metric.name: metric for metric in compare(*given)}, given


def test_the_values_are_those_of_scikit_learn(found: tuple[dict[str, MetricComparison], Given]) -> None:
    named, (labels, first, second) = found
    for metric, function in (
        ("accuracy", metrics.accuracy_score),
        ("balanced accuracy", metrics.balanced_accuracy_score),
        ("recall of b", lambda *two: metrics.recall_score(*two, average=None)[1]),
        ("precision of c", lambda *two: metrics.precision_score(*two, average=None)[2]),
    ):
        assert named[metric].first.value == pytest.approx(function(labels, first))
        assert named[metric].second.value == pytest.approx(function(labels, second))
        difference = named[metric].difference
        if difference is not None:
            both = named[metric].first.value - named[metric].second.value
            assert difference.value == pytest.approx(both)
        for estimate in filter(None, (named[metric].first, named[metric].second, difference)):
            assert estimate.low < estimate.value < estimate.high
    assert named["accuracy"].better == named["recall of b"].better == named["balanced accuracy"].better == 0
    assert named["precision of b"].difference is None
    assert named["precision of b"].better is None


def test_the_exact_test_decides_which_is_better_corrected_for_all_metrics() -> None:
    for rows in range(1, 40):
        labels = np.array(["a"] * 40)
        worse = np.array(["b"] * rows + ["a"] * (40 - rows))
        compared = compare(labels, labels, worse)
        accuracy, chance = compared[0], binomtest(rows, rows).pvalue
        assert accuracy.p_value == pytest.approx(chance)
        # With balanced accuracy and the recall of the one class, the smallest of three counts thrice.
        assert chance <= accuracy.adjusted_p_value <= min(1, 3 * chance)
        assert accuracy.better == (0 if accuracy.adjusted_p_value < 0.05 else None), rows
    one = compare(np.array(["a"]), np.array(["a"]), np.array(["b"]))
    assert [metric.better for metric in one] == [None] * len(one)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("classes", "rows", "pages"), [(10, 3_000, 200), pytest.param(100, 5_000, 40, marks=LONG)]
)
def test_of_equal_versions_one_is_called_better_on_one_page_of_twenty_at_most(
    classes: int, rows: int, pages: int
) -> None:
    rng = np.random.default_rng(classes)
    names = np.array([f"class {code:03}" for code in range(classes)])
    claims = uncorrected = 0
    for _ in range(pages):
        codes = rng.integers(classes, size=rows)
        # Two versions that add noise of the same size to the same scores: equal in every metric.
        scores = 4 * np.eye(classes)[codes] + rng.normal(0, 1, (rows, classes))
        given = [softmax(scores + rng.normal(0, 1, scores.shape), axis=1) for _ in range(2)]
        first, second = (names[each.argmax(axis=1)] for each in given)
        page = compare(names[codes], first, second, (given[0], given[1]), tuple(names))
        assert page[2].name == "log loss"
        assert len(page) > 2 * classes
        claims += any(metric.better is not None for metric in page)
        uncorrected += any(metric.p_value is not None and metric.p_value < 0.05 for metric in page)
    assert claims <= 0.05 * pages + 2.5 * np.sqrt(0.05 * 0.95 * pages), claims
    # The rows are enough to be wrong: tested at 5% each, too many pages make a claim.
    assert uncorrected > 0.2 * pages, uncorrected


def test_a_clear_difference_is_still_found_among_a_hundred_classes() -> None:
    rng = np.random.default_rng(5)
    names = np.array([f"class {code:03}" for code in range(100)])
    labels = np.repeat(names, 10)
    first, second = (np.where(rng.random(1_000) < share, labels, names[0]) for share in (0.95, 0.85))
    found = {metric.name: metric for metric in compare(labels, first, second)}
    assert found["accuracy"].better == found["balanced accuracy"].better == 0


def test_a_perfect_score_on_few_rows_is_not_certain() -> None:
    labels = np.array(["a"] * 10 + ["b"] * 10)
    for metric in compare(labels, labels, labels)[:2]:
        assert metric.first.value == metric.first.high == 1
        assert metric.first.low < 0.9
        assert metric.difference is not None
        assert metric.difference.low < -0.1
        assert metric.difference.high > 0.1


def test_a_class_that_one_never_predicts_has_no_precision() -> None:
    labels = np.array(["a", "b"])
    names = [metric.name for metric in compare(labels, labels, np.array(["a", "a"]))]
    assert "precision of b" not in names
    assert "recall of b" in names


def test_the_lower_log_loss_is_the_better_one() -> None:
    rng = np.random.default_rng(3)
    labels = rng.choice(CLASSES, 200)
    right = 0.8 * (labels[:, None] == CLASSES) + 0.2 / 3
    # Some rows are wrong, so that the sure version has paid for mistakes.
    right[:20] = right[:20, ::-1]
    unsure = np.full((200, 3), 1 / 3)
    found = compare(labels, labels, labels, (right, unsure), tuple(CLASSES.tolist()))[2]
    assert found.name == "log loss"
    assert found.difference is not None
    assert found.difference.high < 0
    assert found.better == 0


def test_probabilities_that_do_not_fit_the_labels_leave_out_log_loss() -> None:
    labels, given = np.array(["a", "z"]), np.eye(2)
    unknown = Outcomes(labels, labels, given, ("a", "b")), Outcomes(labels, labels, given, ("a", "z"))
    without = Outcomes(labels, labels), unknown[1]
    for pair in (unknown, without, [unknown[1].take(np.arange(1))] * 2):
        assert "log loss" not in [metric.name for metric in compare_metrics(*pair)]
    assert "log loss" in [metric.name for metric in compare_metrics(unknown[1], unknown[1])]
