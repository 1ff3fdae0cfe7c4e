"""Figures of two versions on the same rows: their values, and that 95% means 95%."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from registry_tools.intervals import Figure, figures, log_loss

CLASSES = np.array(["a", "b", "c"])


def answers(rng: np.random.Generator, labels: np.ndarray, accuracy: float) -> np.ndarray:
    return np.where(rng.random(len(labels)) < accuracy, labels, rng.choice(CLASSES, len(labels)))


@pytest.fixture(scope="module")
def found() -> tuple[dict[str, Figure], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(1)
    labels = rng.choice(CLASSES, 500)
    first, second = answers(rng, labels, 0.9), answers(rng, labels, 0.6)
    given = (labels, first, second)
    return {figure.name: figure for figure in figures(*given)}, given


def test_the_values_are_those_of_scikit_learn(
    found: tuple[dict[str, Figure], tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> None:
    named, (labels, first, second) = found
    for figure, function in (
        ("accuracy", metrics.accuracy_score),
        ("balanced accuracy", metrics.balanced_accuracy_score),
        ("F1, mean of the classes", lambda *two: metrics.f1_score(*two, average="macro")),
        ("recall of b", lambda *two: metrics.recall_score(*two, average=None)[1]),
        ("precision of c", lambda *two: metrics.precision_score(*two, average=None)[2]),
    ):
        assert named[figure].first.value == pytest.approx(function(labels, first))
        assert named[figure].second.value == pytest.approx(function(labels, second))
        difference = named[figure].first.value - named[figure].second.value
        assert named[figure].difference.value == pytest.approx(difference)
        for estimate in (named[figure].first, named[figure].second, named[figure].difference):
            assert estimate.low < estimate.value < estimate.high


def test_an_interval_has_the_true_value_in_it_about_95_times_of_100() -> None:
    rng = np.random.default_rng(2)
    truth = 0.8 + 0.2 / 3
    inside = {"accuracy": 0, "balanced accuracy": 0}
    for _ in range(200):
        labels = rng.choice(CLASSES, 300)
        given = labels, answers(rng, labels, 0.8), answers(rng, labels, 0.8)
        for figure in figures(*given):
            if figure.name in inside:
                inside[figure.name] += figure.first.low <= truth <= figure.first.high
    assert all(180 <= times <= 199 for times in inside.values()), inside


def test_a_perfect_score_on_few_rows_is_not_certain() -> None:
    labels = np.array(["a"] * 10 + ["b"] * 10)
    accuracy = figures(labels, labels, labels)[0]
    assert accuracy.first.value == accuracy.first.high == 1
    assert accuracy.first.low < 0.9


def test_a_class_that_one_never_answers_has_no_precision() -> None:
    labels = np.array(["a", "b"])
    names = [figure.name for figure in figures(labels, labels, np.array(["a", "a"]))]
    assert "precision of b" not in names
    assert "recall of b" in names


def test_log_loss_is_that_of_scikit_learn_whatever_the_order_of_the_classes() -> None:
    rng = np.random.default_rng(3)
    labels = rng.choice(CLASSES, 200)
    sure = 0.8 * (labels[:, None] == CLASSES) + 0.2 / 3
    unsure = np.full((200, 3), 1 / 3)
    classes = tuple(CLASSES.tolist())
    found = log_loss(labels, (sure[:, ::-1], classes[::-1]), (unsure, classes))
    assert found is not None
    assert found.first.value == pytest.approx(metrics.log_loss(labels, sure, labels=CLASSES))
    assert found.second.value == pytest.approx(np.log(3))
    assert found.difference.high < 0
    assert found.less_is_better


def test_a_version_that_does_not_know_a_class_has_no_log_loss() -> None:
    labels = np.array(["a", "z"])
    assert log_loss(labels, (np.eye(2), ("a", "b")), (np.eye(2), ("a", "z"))) is None
