"""The metrics of a holdout, checked against hand-made cases."""

from __future__ import annotations

import numpy as np
import pytest

from registry_tools.stats.holdout_metrics import classification_metrics
from registry_tools.stats.metric import Outcomes, metric_key, metric_suffixes


def metrics(
    labels: list[int], predicted: list[int], scores: np.ndarray | None, names: str
) -> dict[str, float]:
    """Return the metrics of classes with one letter each; labels and predictions are codes."""
    values = np.array(list(names), dtype=object)
    return classification_metrics(Outcomes(values[labels], values[predicted], scores, tuple(names)))


def test_the_metrics_of_a_small_case() -> None:
    predicted = [0, 0, 1, 2, 2, 2]
    probabilities = np.full((6, 3), 0.1)
    probabilities[np.arange(6), predicted] = 0.8
    values = metrics([0, 0, 1, 1, 2, 2], predicted, probabilities, "abc")
    assert values["accuracy"] == pytest.approx(5 / 6)
    assert values["balanced_accuracy"] == pytest.approx((1 + 0.5 + 1) / 3)
    assert values["class/c/precision"] == pytest.approx(2 / 3)
    assert values["class/b/recall"] == pytest.approx(0.5)
    assert values["f1_macro"] == pytest.approx((1 + 2 / 3 + 0.8) / 3)
    assert values["log_loss"] == pytest.approx(-(5 * np.log(0.8) + np.log(0.1)) / 6)
    assert values["roc_auc"] == pytest.approx((1 + 0.75 + 0.875) / 3)


def test_a_holdout_that_misses_a_class_has_no_roc_auc_and_no_false_alarm() -> None:
    values = metrics([0, 0, 1], [0, 2, 1], np.full((3, 3), 1 / 3), "abc")
    assert "roc_auc" not in values
    assert values["balanced_accuracy"] == pytest.approx((0.5 + 1) / 2)
    assert values["class/c/precision"] == 0.0


def test_two_classes_and_no_probabilities() -> None:
    values = metrics([0, 1], [0, 1], None, "ny")
    assert "log_loss" not in values
    assert values["accuracy"] == 1.0
    scores = np.array([[0.9, 0.1], [0.2, 0.8]])
    values = metrics([0, 1], [0, 1], scores, "ny")
    assert values["roc_auc"] == 1.0


def test_class_names_fit_into_metric_names_and_stay_apart() -> None:
    assert metric_suffixes(["<=50K", ">50K", "Löwe"]) == ["__50K", "_50K", "Löwe"]
    assert metric_suffixes(["a/b", "a:b"]) == ["a_b_0", "a_b_1"]
    assert metric_suffixes(["a/b", "a:b", "a_b_0", "..", ""]) == ["a_b_0", "a_b_1", "a_b_0_2", "__3", "__4"]
    assert metric_key("recall:..") == "class/_/recall"
    assert max(len(name) for name in metric_suffixes(["x" * 300, "y"])) <= 110
