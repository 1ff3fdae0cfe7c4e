"""Evaluating the trials of a sweep, and their order."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.data.load import load_dataset
from pipeline.data.split import split_rows
from pipeline.estimators import models_of
from pipeline.params.definitions import SweepParams, TrainParams
from pipeline.sweep import trials
from pipeline.sweep.study import SweepStudy
from pipeline.sweep.sweep import rank
from pipeline.training.model_card import Trial
from pipeline.training.model_pipeline import resolve_model
from registry_tools.stats.metric import find_metric
from registry_tools.task import CLASSIFICATION, REGRESSION


def evaluate(params: SweepParams, number: int = 0) -> Trial:
    dataset = load_dataset(params)
    params = resolve_model(params, dataset)
    training = dataset.take(split_rows(dataset, params)[0])
    study = SweepStudy(params, [params.model])
    trial = [study.ask(each) for each in range(number + 1)][-1]
    assert trial is not None
    return trials.evaluate_trial(trial, dataset.features, training)


@pytest.mark.parametrize("model", models_of(CLASSIFICATION))
def test_a_drawn_classifier_can_be_evaluated_and_the_default_beats_chance(model: str) -> None:
    assert evaluate(SweepParams(model=model, max_iter=50)).metrics["cv/accuracy_mean"] > 0.85
    drawn = evaluate(SweepParams(model=model, max_iter=50), 1)
    assert drawn.failure is None
    assert set(drawn.metrics) == {"cv/accuracy_mean", "cv/accuracy_std", "seconds"}


@pytest.mark.parametrize("model", models_of(REGRESSION))
def test_a_drawn_regressor_can_be_evaluated_and_the_default_beats_the_mean(
    model: str, line_csv: Path
) -> None:
    given = {"data": str(line_csv), "target": "y", "name": "line", "metric": "r2", "max_iter": 50}
    assert evaluate(SweepParams(model=model, **given)).metrics["cv/r2_mean"] > 0.5
    drawn = evaluate(SweepParams(model=model, **given), 1)
    assert drawn.failure is None
    assert set(drawn.metrics) == {"cv/r2_mean", "cv/r2_std", "seconds"}


def test_what_an_estimator_raises_is_the_result() -> None:
    params = SweepParams(model="knn")
    dataset = load_dataset(params)
    training = dataset.take(split_rows(dataset, params)[0])
    trial = Trial(0, params.train_params("knn", {"n_neighbors": 1000}))
    result = trials.evaluate_trial(trial, dataset.features, training)
    assert result.metrics == {}
    assert "n_neighbors <= n_samples" in str(result.failure)


def evaluated(number: int, metric: str, mean: float, std: float) -> Trial:
    metrics = {f"cv/{metric}_mean": mean, f"cv/{metric}_std": std}
    task = REGRESSION if metric == "rmse" else CLASSIFICATION
    return Trial(number, TrainParams(data="x.csv", target="y", name="own", task=task, metric=metric), metrics)


def test_the_best_is_the_most_accurate_then_the_steadiest_then_the_first() -> None:
    def order(*trials: tuple[int, float, float]) -> list[int]:
        found = [evaluated(number, "accuracy", mean, std) for number, mean, std in trials]
        return [trial.number for trial in rank(found, find_metric("accuracy", CLASSIFICATION))]

    assert order((3, 0.9, 0.02), (1, 0.9, 0.01), (0, 0.8, 0.0)) == [1, 3, 0]
    assert order((3, 0.9, 0.02), (1, 0.9, 0.01), (0, 0.9, 0.01)) == [0, 1, 3]
    assert order() == []


def test_a_smaller_error_is_better() -> None:
    errors = [evaluated(number, "rmse", mean, 0.1) for number, mean in enumerate((3.0, 1.0, 2.0))]
    assert [trial.number for trial in rank(errors, find_metric("rmse", REGRESSION))] == [1, 2, 0]
