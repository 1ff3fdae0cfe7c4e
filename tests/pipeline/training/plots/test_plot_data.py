"""The values of the plots, checked on classifiers with known values."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import LinearSVC

from pipeline.data.dataset import Dataset
from pipeline.params.definitions import TrainParams
from pipeline.training.fit_pipeline import fit_pipeline
from pipeline.training.plots import figures, plot_data
from registry_tools.stats.metric import Outcomes, find_metric
from registry_tools.task import CLASSIFICATION, REGRESSION

LABELS = np.array([0, 0, 1, 1, 2, 2])
CERTAIN = np.eye(3)[LABELS]
ACCURACY, RMSE = find_metric("accuracy", CLASSIFICATION), find_metric("rmse", REGRESSION)


def dataset(features: pd.DataFrame, labels: pd.Series, names: tuple[str, ...] = ("no", "yes")) -> Dataset:
    rows = np.arange(len(labels), dtype=np.uint64)
    return Dataset(features, labels, "y", names, rows, "source", "digest", rows)


def classified(labels: np.ndarray, probabilities: np.ndarray, names: Sequence[str] = "abc") -> Outcomes:
    """Return the outcomes of a classifier that predicts the likeliest class."""
    values = np.array(list(names), dtype=object)
    return Outcomes(values[labels], values[probabilities.argmax(axis=1)], probabilities, tuple(names))


def test_a_confusion_matrix_has_the_true_classes_as_rows() -> None:
    found = plot_data.confusions(classified(LABELS, CERTAIN[[0, 2, 2, 2, 4, 5]]))
    assert found == {"classes": ["a", "b", "c"], "counts": [[1, 1, 0], [0, 2, 0], [0, 0, 2]]}
    texts = {text.get_text() for text in figures.confusion_matrix(found).axes[0].texts}
    assert texts == {"0", "1", "2"}


def test_a_perfect_classifier_has_an_area_of_one() -> None:
    found = plot_data.one_against_the_rest(classified(LABELS, CERTAIN))
    assert list(found) == ["a", "b", "c"]
    for curve in found.values():
        assert (curve["roc_auc"], curve["average_precision"], curve["rows"]) == (1, 1, 2)


def test_a_class_that_is_missing_from_the_holdout_has_no_curve() -> None:
    found = plot_data.one_against_the_rest(classified(LABELS[:4], CERTAIN[:4]))
    assert list(found) == ["a", "b"]


def test_a_long_curve_is_thinned_and_keeps_its_ends() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 5000)
    scores = rng.random(5000)
    found = plot_data.one_against_the_rest(classified(labels, np.column_stack([1 - scores, scores]), "ny"))
    roc = found["y"]["roc"]
    assert len(roc["true_positive_rate"]) <= 200
    assert roc["false_positive_rate"][0] == roc["true_positive_rate"][0] == 0
    assert roc["false_positive_rate"][-1] == roc["true_positive_rate"][-1] == 1
    assert found["y"]["roc_auc"] == pytest.approx(0.5, abs=0.03)


def test_calibration_error_is_the_distance_of_predicted_and_observed_frequency() -> None:
    assert plot_data.reliability(classified(LABELS, CERTAIN))["expected_calibration_error"] == 0
    wrong = CERTAIN[:, [1, 2, 0]]
    assert plot_data.reliability(classified(LABELS, wrong))["expected_calibration_error"] == 1
    half = np.array([[0.75, 0.25]] * 4)
    found = plot_data.reliability(classified(np.array([0, 0, 1, 1]), half, "ab"))
    assert found["bins"] == [{"confidence": 0.75, "accuracy": 0.5, "rows": 4}]
    assert found["expected_calibration_error"] == 0.25


def test_the_only_informative_column_has_the_largest_importance() -> None:
    rng = np.random.default_rng(1)
    table = pd.DataFrame({"noise": rng.random(200), "all": rng.random(200)})
    labels = (table["all"] > 0.5).astype(int)
    fitted = LogisticRegression().fit(table, labels)
    entries = plot_data.importance(fitted, dataset(table, labels), ACCURACY, 1)
    assert [entry["column"] for entry in entries] == ["all", "noise"]
    assert entries[0]["mean"] > 0.3 > abs(entries[1]["mean"])


def test_partial_dependence_is_the_mean_prediction_at_each_value() -> None:
    rng = np.random.default_rng(1)
    table = pd.DataFrame({"x": rng.normal(size=80), "n": rng.integers(0, 3, 80), "z": rng.random(80)})
    rows = dataset(table, 3 * table["x"] + 5 * table["n"], ())
    x, n = plot_data.partial_dependence(LinearRegression().fit(rows.features, rows.labels), rows, ["x", "n"])
    assert n["values"] == [0, 1, 2]
    assert np.diff(n["mean"]["prediction"]) == pytest.approx(5, abs=1e-5)
    assert len(x["values"]) == 20
    slopes = np.diff(x["mean"]["prediction"]) / np.diff(x["values"])
    assert slopes == pytest.approx(3, abs=1e-2)


def test_partial_dependence_has_the_second_of_two_classes_or_the_five_largest() -> None:
    rng = np.random.default_rng(1)
    table = pd.DataFrame({"x": rng.normal(size=200)})
    two = dataset(table, (table["x"] > 0).astype(int))
    (entry,) = plot_data.partial_dependence(LogisticRegression().fit(table, two.labels), two, ["x"])
    assert list(entry["mean"]) == ["yes"]
    assert entry["mean"]["yes"] == sorted(entry["mean"]["yes"])
    codes = pd.Series(np.arange(200) % 7).clip(upper=5)
    many = dataset(table, codes, tuple("abcdef"))
    (entry,) = plot_data.partial_dependence(LogisticRegression().fit(table, codes), many, ["x"])
    assert list(entry["mean"]) == ["a", "b", "c", "d", "f"]
    assert plot_data.partial_dependence(LinearSVC().fit(table, codes), many, ["x"]) == []


def test_partial_dependence_takes_text_dates_and_missing_values() -> None:
    rng = np.random.default_rng(1)
    table = pd.DataFrame(
        {
            "town": pd.Series(rng.choice(["Ulm", "Bonn"], 90), dtype=object).where(
                rng.random(90) > 0.2, None
            ),
            "code": pd.Series([f"c{n % 40}" for n in range(90)], dtype=object),
            "day": pd.date_range("2024-01-01", periods=90).strftime("%Y-%m-%d").astype(object),
            "tame": rng.random(90) > 0.5,
            "gap": np.where(rng.random(90) > 0.5, rng.normal(size=90), np.nan),
            "none": np.nan,
        }
    )
    rows = dataset(table, pd.Series(rng.integers(0, 2, 90)))
    columns, fitted = list(table), fit_pipeline(TrainParams(model="logistic_regression"), table, rows)
    found = plot_data.partial_dependence(fitted, rows, columns)
    values = {entry["column"]: entry["values"] for entry in found}
    assert list(values) == columns[:5]
    assert values["town"] == ["Bonn", "Ulm"]
    assert values["tame"] == [False, True]
    assert len(values["code"]) == len(values["day"]) == 20
    assert values["day"] == sorted(values["day"])
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    figure = figures.partial_dependence(found)
    assert [axes.get_xlabel() for axes in figure.axes] == columns[:5]
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["Bonn", "Ulm"]


def fit(estimator: Any) -> Callable[[Dataset], Any]:
    """Return a function that fits an estimator to rows."""
    return lambda rows: clone(estimator).fit(rows.features, rows.labels)


def test_a_learning_curve_ends_with_the_fitted_model_and_is_reproducible() -> None:
    rng = np.random.default_rng(1)
    table = pd.DataFrame({"x": rng.random(100)})
    labels = (table["x"] + rng.normal(0, 0.1, 100) > 0.5).astype(int)
    training, holdout = dataset(table[:80], labels[:80]), dataset(table[80:], labels[80:])
    refit = fit(LogisticRegression())
    first, second = (
        plot_data.learning_curve(refit, refit(training), training, holdout, ACCURACY, 1) for _ in "ab"
    )
    assert first == second
    assert [point["rows"] for point in first] == [8, 20, 40, 60, 80]


def test_a_point_with_too_few_rows_for_the_neighbours_is_left_out_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    table = pd.DataFrame({"x": np.linspace(0, 1, 100)})
    labels = (table["x"] > 0.5).astype(int)
    training, holdout = dataset(table[::2], labels[::2]), dataset(table[1::2], labels[1::2])
    refit = fit(KNeighborsClassifier(15))
    points = plot_data.learning_curve(refit, refit(training), training, holdout, ACCURACY, 1)
    assert [point["rows"] for point in points] == [25, 38, 50]
    assert "the learning curve has no point at 12 rows: Expected n_neighbors" in caplog.text


def test_residuals_are_true_minus_predicted_and_many_rows_are_sampled() -> None:
    found = plot_data.errors(Outcomes(np.array([1.0, 2.0]), np.array([0.5, 3.0])))
    assert found == {"true": [1, 2], "predicted": [0.5, 3], "residual": [0.5, -1]}
    many = np.arange(5000.0)
    sampled = plot_data.errors(Outcomes(many, many + 1))
    assert len(sampled["true"]) == 2000
    assert set(sampled["residual"]) == {-1}


def test_the_importance_of_a_regression_is_the_error_that_shuffling_adds() -> None:
    rng = np.random.default_rng(1)
    table = pd.DataFrame({"noise": rng.random(200), "all": rng.random(200)})
    labels = 10 * table["all"]
    rows, refit = dataset(table, labels, ()), fit(LinearRegression())
    fitted = refit(rows)
    entries = plot_data.importance(fitted, rows, RMSE, 1)
    assert [entry["column"] for entry in entries] == ["all", "noise"]
    assert entries[0]["mean"] > 3
    curve = plot_data.learning_curve(refit, fitted, rows, rows, RMSE, 1)
    assert [point["rows"] for point in curve] == [20, 50, 100, 150, 200]
    assert all(point["holdout"] < 1e-6 for point in curve)


def test_a_learning_curve_of_few_rows_has_fewer_points() -> None:
    table, labels = pd.DataFrame({"x": [0.0, 1.0, 0.1]}), pd.Series([0, 1, 0])
    part, refit = dataset(table, labels), fit(LogisticRegression())
    points = plot_data.learning_curve(refit, refit(part), part, part, ACCURACY, 1)
    assert [point["rows"] for point in points] == [3]


def test_plots_of_many_classes_and_columns_stay_small() -> None:
    names = [f"class number {n}" for n in range(40)]
    labels = np.arange(80) % 40
    found = plot_data.one_against_the_rest(classified(labels, np.eye(40)[labels], names))
    assert len(figures.roc_and_precision_recall(found).axes[0].lines) == 13
    entries = [{"column": f"column {n}", "mean": 1 / (n + 1), "std": 0.0} for n in range(300)]
    assert len(figures.importance(entries).axes[0].patches) == 20
