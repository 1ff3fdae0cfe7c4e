"""The figures of a holdout, checked against hand-made cases."""

from __future__ import annotations

import numpy as np
import pytest

from registry_tools.stats.metrics import evaluate, metric_suffixes

NAMES = ["a", "b", "c"]


def test_the_figures_of_a_small_case() -> None:
    labels, predicted = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 0, 1, 2, 2, 2])
    probabilities = np.full((6, 3), 0.1)
    probabilities[np.arange(6), predicted] = 0.8
    figures = evaluate(labels, predicted, probabilities, NAMES)
    assert figures["accuracy"] == pytest.approx(5 / 6)
    assert figures["balanced_accuracy"] == pytest.approx((1 + 0.5 + 1) / 3)
    assert figures["precision_c"] == pytest.approx(2 / 3)
    assert figures["recall_b"] == pytest.approx(0.5)
    assert figures["f1_macro"] == pytest.approx((1 + 2 / 3 + 0.8) / 3)
    assert figures["log_loss"] == pytest.approx(-(5 * np.log(0.8) + np.log(0.1)) / 6)
    assert figures["roc_auc"] == pytest.approx((1 + 0.75 + 0.875) / 3)


def test_a_holdout_that_misses_a_class_has_no_roc_auc_and_no_false_alarm() -> None:
    figures = evaluate(np.array([0, 0, 1]), np.array([0, 2, 1]), np.full((3, 3), 1 / 3), NAMES)
    assert "roc_auc" not in figures
    assert figures["balanced_accuracy"] == pytest.approx((0.5 + 1) / 2)
    assert figures["precision_c"] == 0.0


def test_two_classes_and_no_probabilities() -> None:
    figures = evaluate(np.array([0, 1]), np.array([0, 1]), None, ["no", "yes"])
    assert "log_loss" not in figures
    assert figures["accuracy"] == 1.0
    scores = np.array([[0.9, 0.1], [0.2, 0.8]])
    assert evaluate(np.array([0, 1]), np.array([0, 1]), scores, ["no", "yes"])["roc_auc"] == 1.0


def test_class_names_fit_into_metric_names_and_stay_apart() -> None:
    assert metric_suffixes(["<=50K", ">50K", "Löwe"]) == ["__50K", "_50K", "Löwe"]
    assert metric_suffixes(["a/b", "a:b"]) == ["a_b_0", "a_b_1"]
    assert max(len(name) for name in metric_suffixes(["x" * 300, "y"])) <= 110
