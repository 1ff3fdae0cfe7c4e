"""Metrics of two versions on the same rows: their values, and that 95% means 95%."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn import metrics

from registry_tools.stats.intervals import MetricComparison, compare_log_loss, compare_metrics

CLASSES = np.array(["a", "b", "c"])


def predict(rng: np.random.Generator, labels: np.ndarray, accuracy: float) -> np.ndarray:
    return np.where(rng.random(len(labels)) < accuracy, labels, rng.choice(CLASSES, len(labels)))


@pytest.fixture(scope="module")
def found() -> tuple[dict[str, MetricComparison], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(1)
    labels = rng.choice(CLASSES, 500)
    first, second = predict(rng, labels, 0.9), predict(rng, labels, 0.6)
    given = (labels, first, second)
    return {metric.name: metric for metric in compare_metrics(*given)}, given


def test_the_values_are_those_of_scikit_learn(
    found: tuple[dict[str, MetricComparison], tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> None:
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
    assert named["accuracy"].better == named["recall of b"].better == 0
    assert named["precision of b"].difference is None


@pytest.mark.parametrize(
    ("rows", "one", "two"),
    [
        ((10, 10, 10), (0.97, 0.97, 0.97), (0.9, 0.9, 0.9)),  # the size of Iris's holdout
        ((135, 12, 3), (0.95, 0.8, 0.6), (0.95, 0.6, 0.5)),  # a class of three rows
        ((100, 100, 100), (0.9, 0.9, 0.9), (0.9, 0.9, 0.9)),
    ],
)
def test_an_interval_has_the_true_value_in_it_about_95_times_of_100(
    rows: tuple[int, ...], one: tuple[float, ...], two: tuple[float, ...]
) -> None:
    rng = np.random.default_rng(2)
    labels, codes = np.repeat(CLASSES, rows), np.repeat(range(3), rows)
    wrong = CLASSES[(codes + 1) % 3]
    truths = {
        "accuracy": [np.dot(rows, shares) / sum(rows) for shares in (one, two)],
        "balanced accuracy": [np.mean(shares) for shares in (one, two)],
        **{f"recall of {name}": [one[c], two[c]] for c, name in enumerate(CLASSES)},
    }
    inside = {(name, part): 0 for name in truths for part in ("first", "second", "difference")}
    for _ in range(200):
        # Two versions that are often wrong on the same rows.
        luck = rng.random(len(labels))
        other = np.where(rng.random(len(labels)) < 0.5, luck, rng.random(len(labels)))
        first = np.where(luck < np.array(one)[codes], labels, wrong)
        second = np.where(other < np.array(two)[codes], labels, wrong)
        for metric in compare_metrics(labels, first, second):
            if metric.name in truths:
                true = dict(zip(("first", "second"), truths[metric.name], strict=True))
                true["difference"] = true["first"] - true["second"]
                for part, value in true.items():
                    estimate = getattr(metric, part)
                    inside[metric.name, part] += estimate.low <= value <= estimate.high
    assert min(inside.values()) >= 176, inside  # 88%; of 95% it would be 190, give or take 6


def test_the_exact_test_decides_which_is_better_and_never_on_one_row() -> None:
    for rows in range(1, 40):
        labels = np.array(["a"] * 40)
        worse = np.array(["b"] * rows + ["a"] * (40 - rows))
        accuracy = compare_metrics(labels, labels, worse)[0]
        chance = binomtest(rows, rows).pvalue
        assert accuracy.better == (0 if chance < 0.05 else None), rows
    one = compare_metrics(np.array(["a"]), np.array(["a"]), np.array(["b"]))
    assert [metric.better for metric in one] == [None] * len(one)


def test_of_equal_versions_one_is_called_better_in_one_of_twenty_cases_at_most() -> None:
    rng = np.random.default_rng(4)
    labels = np.repeat(CLASSES, 50)
    called = 0
    for _ in range(300):
        pair = (predict(rng, labels, 0.8) for _ in range(2))
        called += compare_metrics(labels, *pair)[0].better is not None
    assert called <= 0.05 * 300 + 11  # two standard deviations


def test_a_perfect_score_on_few_rows_is_not_certain() -> None:
    labels = np.array(["a"] * 10 + ["b"] * 10)
    accuracy = compare_metrics(labels, labels, labels)[0]
    assert accuracy.first.value == accuracy.first.high == 1
    assert accuracy.first.low < 0.9


def test_a_class_that_one_never_predicts_has_no_precision() -> None:
    labels = np.array(["a", "b"])
    names = [metric.name for metric in compare_metrics(labels, labels, np.array(["a", "a"]))]
    assert "precision of b" not in names
    assert "recall of b" in names


def test_log_loss_is_that_of_scikit_learn_whatever_the_order_of_the_classes() -> None:
    rng = np.random.default_rng(3)
    labels = rng.choice(CLASSES, 200)
    sure = 0.8 * (labels[:, None] == CLASSES) + 0.2 / 3
    unsure = np.full((200, 3), 1 / 3)
    classes = tuple(CLASSES.tolist())
    found = compare_log_loss(labels, (sure[:, ::-1], classes[::-1]), (unsure, classes))
    assert found is not None
    assert found.first.value == pytest.approx(metrics.log_loss(labels, sure, labels=CLASSES))
    assert found.second.value == pytest.approx(np.log(3))
    assert found.difference.high < 0
    assert found.less_is_better
    assert found.better == 0


def test_probabilities_that_are_no_numbers_have_no_log_loss() -> None:
    labels = np.array(["a", "b"])
    nothing = np.full((2, 2), np.nan)
    assert compare_log_loss(labels, (nothing, ("a", "b")), (np.eye(2), ("a", "b"))) is None


def test_a_version_that_does_not_know_a_class_has_no_log_loss() -> None:
    labels = np.array(["a", "z"])
    assert compare_log_loss(labels, (np.eye(2), ("a", "b")), (np.eye(2), ("a", "z"))) is None
