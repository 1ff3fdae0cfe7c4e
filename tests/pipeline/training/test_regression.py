"""Training on a table whose label is a number, and metrics other than the default."""

from __future__ import annotations

import json
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from pipeline.errors import InvalidParameter
from pipeline.estimators import ESTIMATORS, models_of
from pipeline.params.definitions import TrainParams
from pipeline.result_text import train_lines
from pipeline.training.baseline import read_baseline
from pipeline.training.scoring import measure, warn_if_no_better_than_constant
from pipeline.training.train import TrainResult, train
from registry_tools import load_model
from registry_tools.models.evidence import Evaluation, read_evaluation, read_holdout
from registry_tools.stats.bootstrap import bootstrap_estimate
from registry_tools.stats.metric import Outcomes, find_metric
from registry_tools.stats.metric_comparison import compare_number_metrics, estimate_number_metric
from registry_tools.stats.paired_metric import compare_by
from registry_tools.task import CLASSIFICATION, REGRESSION

REGRESSION_METRICS = {"rmse", "mae", "median_absolute_error", "r2"}


def line_params(path: Path, **params: object) -> TrainParams:
    return TrainParams(data=str(path), target="y", name="line", plots=False, **params)  # type: ignore[arg-type]


def artifacts_of(result: TrainResult, folder: str) -> Path:
    return Path(mlflow.artifacts.download_artifacts(run_id=result.run_id, artifact_path=folder))


@pytest.mark.parametrize("model", models_of(REGRESSION))
def test_every_regressor_is_saved_loads_and_predicts_numbers(
    model: str, store: str, line_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REGISTRY_TOOLS_TRUST", raising=False)
    result = train(line_params(line_csv, model=model))
    iterations = {"iterations"} if ESTIMATORS[model].stops_early else set()
    expected = REGRESSION_METRICS | {"cv/rmse_mean", "cv/rmse_std", "train/rmse"} | iterations
    assert set(result.metrics) == expected
    assert result.metrics["r2"] > 0.5
    loaded = load_model("line@staging")
    assert loaded.info.target_names is None
    predicted = loaded.predict([{"x": 1.0, "z": 0.0, "size": "never seen"}])
    assert predicted.dtype.kind == "f"
    assert predicted[0] == pytest.approx(125, abs=15)


def test_a_table_of_numbers_needs_no_parameter_beyond_data_target_and_name(
    store: str, line_csv: Path
) -> None:
    result = train(TrainParams(data=str(line_csv), target="y", name="line"))
    assert (result.task, result.metric) == (REGRESSION, "rmse")
    client = MlflowClient()
    run, version = client.get_run(result.run_id), client.get_model_version("line", "1")
    assert run.data.params["task"] == REGRESSION
    assert (run.data.params["estimator"], run.data.params["model.alpha"]) == ("ridge", "1.0")
    assert not {"max_iter", "calibrate", "class_weight"} & set(run.data.params)
    assert version.tags["metric"] == "rmse"
    assert version.tags["rmse"] == f"{result.value:.4f}"
    view = client.get_experiment(run.info.experiment_id).tags["mlflow.sharedViewState.best"]
    assert json.loads(view)["orderByKey"] == "metrics.`rmse`"
    assert json.loads(view)["orderByAsc"] is True
    card = run.data.tags["mlflow.note.content"]
    assert "**Where it fails.** The largest errors: " in card
    assert "| root mean squared error, 95% interval |" in card
    assert train_lines(result)[1].startswith(f"rmse      {result.value:.4f} on 30 held-out rows, trained on")
    plots = {path.name for path in artifacts_of(result, "plots").iterdir()}
    pictures = {"residuals", "predicted_against_true", "learning_curve"}
    pictures |= {"permutation_importance", "partial_dependence"}
    assert plots == {f"{name}.json" for name in pictures}
    images = {path.name.partition("+")[0] for path in artifacts_of(result, "images").iterdir()}
    assert images == pictures


def test_the_evidence_of_a_regression_holds_numbers(store: str, line_csv: Path) -> None:
    folder = artifacts_of(train(line_params(line_csv)), "evidence")
    holdout = read_holdout(folder)
    assert holdout is not None
    assert read_evaluation(folder) == Evaluation(REGRESSION, "rmse")
    assert pd.read_parquet(folder / "holdout.parquet")["y"].dtype == np.float64
    recorded = json.loads((folder / "recorded_predictions.json").read_text())
    rows = pd.DataFrame(**recorded["rows"])
    assert load_model("line/1").predict(rows).tolist() == recorded["predictions"]
    monitored = read_baseline(folder)
    assert monitored is not None
    assert (monitored.task, monitored.metric) == (REGRESSION, "rmse")
    assert monitored.outcomes.labels.tolist() == holdout.labels.tolist()


def test_a_regressor_that_knows_nothing_is_reported(
    store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    random = np.random.default_rng(3)
    path = tmp_path / "noise.csv"
    pd.DataFrame({"x": random.normal(size=80), "y": random.normal(size=80)}).to_csv(path, index=False)
    train(line_params(path, model="knn", model_params={"n_neighbors": 1}))
    assert "no better than always predicting the mean " in caplog.text
    assert "rmse is " in caplog.text


def test_each_metric_is_compared_with_the_constant_that_suits_it(caplog: pytest.LogCaptureFixture) -> None:
    numbers = np.array([0.0, 1.0, 2.0, 3.0, 94.0])
    at_mean = Outcomes(numbers, np.full(5, 20.0))
    for name, warned in (("mae", "the median 2: mae is 19.2000"), ("rmse", "the mean 20: rmse is 37.")):
        metric = find_metric(name, REGRESSION)
        warn_if_no_better_than_constant(metric, at_mean, metric.compute(at_mean))
        assert f"no better than always predicting {warned}" in caplog.text
    labels = np.array(["rare"] + ["usual"] * 9, dtype=object)
    precision = find_metric("precision:rare", CLASSIFICATION)
    caplog.clear()
    warn_if_no_better_than_constant(precision, Outcomes(labels, labels, None, ("rare", "usual")), 0.11)
    assert not caplog.text
    warn_if_no_better_than_constant(precision, Outcomes(labels, labels, None, ("rare", "usual")), 0.09)
    assert "no better than always predicting 'rare': precision:rare is 0.1000" in caplog.text


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"model": "svc"}, "'y' needs a regression: take one of random_forest, .*linear, ridge, svr"),
        ({"metric": "accuracy"}, "it is a metric of classification; a regression has rmse"),
        ({"metric": "rsme"}, "did you mean rmse"),
        ({"metric": "nowhere:function"}, "cannot be imported"),
        ({"model": "knn", "model_params": {"n_neighbors": 100}}, "a fold has only 96 training rows"),
    ],
)
def test_a_model_or_metric_of_another_task_is_refused(
    params: dict[str, object], reason: str, store: str, line_csv: Path
) -> None:
    with pytest.raises(InvalidParameter, match=reason):
        train(line_params(line_csv, **params))
    assert MlflowClient().search_experiments(filter_string="name = 'line'") == []


@pytest.mark.parametrize(
    ("metric", "reason"),
    [
        ("recall:setosas", "did you mean 'setosa'"),
        ("rmse", "it is a metric of regression"),
        ("recall:", "a classification has accuracy"),
    ],
)
def test_a_metric_that_iris_does_not_have_is_refused(metric: str, reason: str, store: str) -> None:
    with pytest.raises(InvalidParameter, match=reason):
        train(TrainParams(metric=metric))


def largest_share(labels: np.ndarray, predicted: np.ndarray) -> float:
    return float(np.mean(labels == predicted)) * 100


@pytest.mark.parametrize(
    ("metric", "key"),
    [
        ("recall:virginica", "class/virginica/recall"),
        ("precision:virginica", "class/virginica/precision"),
        ("average_precision", "average_precision"),
        (f"{__name__}:{largest_share.__name__}", f"{__name__}_{largest_share.__name__}"),
    ],
)
def test_the_metric_decides_tag_card_and_cross_validation(metric: str, key: str, store: str) -> None:
    result = train(TrainParams(metric=metric, plots=False))
    assert result.value == result.metrics[key]
    assert {f"cv/{key}_mean", f"cv/{key}_std", f"train/{key}", "accuracy"} <= set(result.metrics)
    version = MlflowClient().get_model_version("iris", "1")
    assert version.tags["metric"] == metric
    assert version.tags[key] == f"{result.value:.4f}"
    assert f"{metric} {result.value:.4f} on 30 held-out rows" in version.description
    assert read_evaluation(artifacts_of(result, "evidence")) == Evaluation(CLASSIFICATION, metric)


def test_a_rare_class_is_reported_if_the_model_never_predicts_it(
    store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    random = np.random.default_rng(0)
    path = tmp_path / "rare.csv"
    labels = np.where(np.arange(200) % 10 == 0, "rare", "usual")
    pd.DataFrame({"x": random.normal(size=200), "kind": labels}).to_csv(path, index=False)
    for metric, constant in (
        ("recall:rare", "usual"),
        ("precision:rare", "rare"),
        ("balanced_accuracy", "usual"),
    ):
        caplog.clear()
        train(TrainParams(data=str(path), target="kind", name="rare", metric=metric, plots=False))
        assert f"no better than always predicting {constant!r}: {metric} is" in caplog.text


def test_a_precision_without_predictions_is_zero_and_an_interval_contains_its_value() -> None:
    labels = np.array(["a", "b"] * 20, dtype=object)
    never = Outcomes(labels, np.full(40, "a", dtype=object))
    assert measure(find_metric("precision:b", CLASSIFICATION), never) == 0
    numbers = np.arange(40.0)
    off = Outcomes(numbers, numbers + np.where(numbers % 2, 1, -3))
    for estimate in (bootstrap_estimate, estimate_number_metric):
        found = estimate(find_metric("mae", REGRESSION), off)
        assert found.low < found.value == 2 < found.high


def test_a_number_metric_has_one_interval_everywhere() -> None:
    random = np.random.default_rng(0)
    labels = random.normal(size=60)
    one, two = (Outcomes(labels, labels + random.normal(size=60)) for _ in range(2))
    names = ("rmse", "mae", "median_absolute_error", "r2")
    metrics = [find_metric(name, REGRESSION) for name in names]
    differences = [compare_by(metric, one, two) for metric in metrics]
    page = compare_number_metrics([each for each in differences if each is not None], one, two)
    assert [each.first for each in page] == [estimate_number_metric(metric, one) for metric in metrics]
    function = find_metric("tests.support.metrics:negative_error", REGRESSION)
    found = estimate_number_metric(function, one)
    assert found.low < found.value < found.high < 0
    constant = Outcomes(np.ones(3), np.ones(3))
    assert np.isnan(estimate_number_metric(find_metric("r2", REGRESSION), constant).low)
