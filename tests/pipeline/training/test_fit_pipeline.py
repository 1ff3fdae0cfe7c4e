"""Weights, calibration and threshold of a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from sklearn.calibration import CalibratedClassifierCV
from sklearn.metrics import recall_score

from pipeline.data.dataset import Dataset
from pipeline.data.folds import divide_units
from pipeline.data.load import load_dataset
from pipeline.errors import InvalidParameter
from pipeline.params.definitions import TrainParams
from pipeline.training.checks import check_fit
from pipeline.training.fit_pipeline import cross_validate, fit_pipeline
from pipeline.training.model_pipeline import resolve_model
from pipeline.training.train import train
from registry_tools import load_model
from registry_tools.stats.metric import Outcomes, find_metric


def rare(rows: int = 600) -> pd.DataFrame:
    """Return a table with 10% of the class yes, which overlaps with the class no."""
    rng = np.random.default_rng(0)
    is_yes = np.arange(rows) % 10 == 0
    table = pd.DataFrame({"x": rng.normal(size=rows) + 1.5 * is_yes, "y": rng.normal(size=rows)})
    return table.assign(kind=np.where(is_yes, "yes", "no"), importance=np.where(is_yes, 9.0, 1.0))


def load(folder: Path, table: pd.DataFrame | None = None, **values: Any) -> tuple[Dataset, TrainParams]:
    path = folder / "table.csv"
    (rare() if table is None else table).to_csv(path, index=False)
    params = TrainParams(
        **{"data": str(path), "target": "kind", "name": "own", "drop": ("importance",), **values}
    )
    dataset = load_dataset(params)
    return dataset, resolve_model(params, dataset)


def recall(folder: Path, **values: Any) -> float:
    dataset, params = load(folder, **values)
    model = fit_pipeline(params, dataset.features, dataset)
    return float(recall_score(dataset.labels, model.predict(dataset.features)))


@pytest.mark.parametrize("model", ["logistic_regression", "svc", "random_forest"])
def test_class_weights_and_row_weights_raise_the_recall_of_a_rare_class(model: str, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"model": model}
    if model == "random_forest":
        arguments["model_params"] = {"max_depth": 3, "n_estimators": 20}
    plain = recall(tmp_path, **arguments)
    balanced = recall(tmp_path, **arguments, class_weight="balanced")
    by_name = recall(tmp_path, **arguments, class_weight={"yes": 9})
    by_row = recall(tmp_path, **arguments, weight="importance", drop=())
    assert plain < 0.4
    assert balanced > plain + 0.3
    assert by_name == pytest.approx(balanced, abs=0.05)
    assert by_row == by_name


def test_weights_are_no_feature_and_separate_no_equal_rows(tmp_path: Path) -> None:
    table = pd.concat([rare(100), rare(100).assign(importance=2.0)])
    dataset, _ = load(tmp_path, table, weight="importance", drop=())
    assert list(dataset.features) == ["x", "y"]
    assert len(np.unique(dataset.units)) == 100
    assert dataset.weights is not None
    assert dataset.take(np.array([0, 1])).weights.tolist() == [9.0, 1.0]


@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
def test_any_classifier_can_be_calibrated_on_folds(method: str, tmp_path: Path) -> None:
    dataset, params = load(tmp_path, model="knn", calibrate=method)
    model = fit_pipeline(params, dataset.features, dataset)
    assert isinstance(model[-1], CalibratedClassifierCV)
    assert model[-1].method == method
    assert model[-1].cv == 5  # the positions of the rows are not stored
    assert model.predict_proba(dataset.features)[:, 1].mean() == pytest.approx(0.1, abs=0.03)


def test_calibrate_none_leaves_svc_without_probabilities(tmp_path: Path) -> None:
    dataset, params = load(tmp_path, model="svc", calibrate="none")
    assert not hasattr(fit_pipeline(params, dataset.features, dataset), "predict_proba")


def test_the_folds_of_calibration_and_threshold_keep_groups_and_times_whole(tmp_path: Path) -> None:
    table = rare().assign(group=np.arange(600) // 6, day=np.arange(600) // 4)
    for values in ({"group": "group", "drop": ("importance", "day")}, {"time": "day"}):
        dataset, params = load(tmp_path, table, **values)
        units = dataset.units if dataset.times is None else dataset.times
        folds = divide_units(dataset, params)
        assert sorted(np.concatenate([tested for _, tested in folds]).tolist()) == list(range(600))
        for fitted, tested in folds:
            assert not set(units[fitted]) & set(units[tested])


def test_a_threshold_is_chosen_for_a_metric_and_served(store: str, tmp_path: Path) -> None:
    _, params = load(tmp_path, threshold="balanced_accuracy", test_size=0.4, plots=False)
    result = train(params)
    assert result.metrics["class/yes/recall"] > 0.5
    tag = MlflowClient().get_run(result.run_id).data.tags["threshold"]
    assert 0.03 < float(tag) < 0.25
    model = load_model("own@staging")
    rows = rare()[["x", "y"]]
    expected = np.where(model.predict_proba(rows)[:, 1] >= float(tag), "yes", "no")
    assert (model.predict_names(rows) == expected).all()
    plain = train(params.replace(threshold=None))
    assert plain.metrics["balanced_accuracy"] < result.metrics["balanced_accuracy"] - 0.1
    assert "threshold" not in MlflowClient().get_run(plain.run_id).data.tags


def test_a_threshold_of_random_labels_does_not_lift_the_cross_validation(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = rare(200).assign(kind=rng.permutation(rare(200)["kind"]), x=rng.normal(size=200))
    values = {"threshold": "balanced_accuracy", "metric": "balanced_accuracy", "cv": "5x2"}
    dataset, params = load(tmp_path, table, **values)
    found = cross_validate(params, dataset.features, dataset)
    assert found["cv/balanced_accuracy_mean"] == pytest.approx(0.5, abs=0.12)


def test_weights_calibration_and_threshold_that_cannot_be_are_refused(tmp_path: Path) -> None:
    numbers = rare().assign(kind=np.random.default_rng(0).normal(size=600))
    few = rare().iloc[:20].assign(importance=1.0)
    three = rare().assign(kind=np.arange(600) % 3)
    for table, values, reason in (
        (None, {"class_weight": {"maybe": 2}}, "'maybe' is no class; the classes are 'no', 'yes'"),
        (None, {"class_weight": "balanced", "model": "knn"}, "class_weight=balanced: knn takes no weights"),
        (
            None,
            {"weight": "importance", "drop": (), "model": "knn"},
            "weight=importance: knn takes no weights",
        ),
        (None, {"threshold": "f1"}, "threshold=f1: a classification has accuracy, balanced"),
        (None, {"threshold": "roc_auc"}, "threshold=roc_auc: does not depend on a threshold"),
        (None, {"threshold": "accuracy", "model": "svc", "calibrate": "none"}, "svc has no probabilities"),
        (
            None,
            {"metric": "roc_auc", "model": "svc", "calibrate": "none"},
            "metric=roc_auc: svc has no probabilities with calibrate=none: take calibrate=sigmoid",
        ),
        (
            few,
            {"threshold": "accuracy", "drop": ()},
            "threshold=accuracy: a class has too few rows for .*: take",
        ),
        (
            few,
            {"metric": "roc_auc", "model": "svc", "drop": ()},
            "folds of calibrated probabilities: take more",
        ),
        (three, {"threshold": "accuracy"}, "needs two classes, 'kind' has 3"),
        (numbers, {"threshold": "accuracy"}, "threshold=accuracy: 'kind' holds numbers, not classes"),
        (numbers, {"class_weight": "balanced"}, "class_weight=balanced: 'kind' holds numbers"),
        (numbers, {"class_weight": {"yes": 2}}, "class_weight=.*: 'kind' holds numbers"),
        (numbers, {"calibrate": "sigmoid"}, "calibrate=sigmoid: 'kind' holds numbers"),
    ):
        dataset, params = load(tmp_path, table, **values)
        with pytest.raises(InvalidParameter, match=reason):
            check_fit(params, dataset)
    for text in ("[1]", '{"yes": -1}', '{"yes": "a"}', "heavy", "{}"):
        with pytest.raises(InvalidParameter, match=r"class_weight=.*: must be balanced, or a JSON object"):
            TrainParams(class_weight=text)


def test_the_threshold_of_equal_values_is_the_one_nearest_to_a_half(tmp_path: Path) -> None:
    table = pd.DataFrame({"x": np.arange(100) % 2 * 10.0, "y": np.arange(100), "kind": np.arange(100) % 2})
    dataset, params = load(tmp_path, table, threshold="accuracy", drop=())
    model = fit_pipeline(params, dataset.features, dataset)
    assert model[-1].threshold == 0.5
    outcomes = Outcomes(dataset.label_values(), np.array(["0", "1"], object)[model.predict(dataset.features)])
    assert find_metric("accuracy", "classification").compute(outcomes) == 1
