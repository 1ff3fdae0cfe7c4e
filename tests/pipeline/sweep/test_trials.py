"""Evaluating the trials of a sweep, and their order."""

from __future__ import annotations

import pytest

from pipeline.data.load import load_dataset
from pipeline.data.split import split_rows
from pipeline.estimators import ESTIMATORS
from pipeline.params.definitions import SweepParams
from pipeline.sweep import trials
from pipeline.sweep.study import SweepStudy
from pipeline.sweep.trials import Trial


@pytest.mark.parametrize("model", ESTIMATORS)
def test_what_is_drawn_can_be_evaluated(model: str) -> None:
    params = SweepParams(model=model, max_iter=50)
    dataset = load_dataset(params)
    training = dataset.take(split_rows(dataset, params)[0])
    study = SweepStudy(params)
    for number in range(2):
        trial = study.ask(number)
        assert trial is not None
        result = trials.evaluate_trial(trial, params, dataset.features, training)
        assert result.failure is None
        assert 0.3 <= result.metrics["cv_accuracy_mean"] <= 1


def test_what_an_estimator_raises_is_the_result() -> None:
    params = SweepParams(model="knn")
    dataset = load_dataset(params)
    training = dataset.take(split_rows(dataset, params)[0])
    trial = Trial(0, "knn", {"n_neighbors": 1000})
    result = trials.evaluate_trial(trial, params, dataset.features, training)
    assert result.metrics == {}
    assert "n_neighbors <= n_samples" in str(result.failure)


def test_the_best_is_the_most_accurate_then_the_steadiest_then_the_first() -> None:
    def metrics(mean: float, std: float) -> dict[str, float]:
        return {"cv_accuracy_mean": mean, "cv_accuracy_std": std}

    even = {3: metrics(0.9, 0.02), 1: metrics(0.9, 0.01), 0: metrics(0.8, 0.0)}
    assert trials.rank(even) == [1, 3, 0]
    assert trials.rank(even | {0: metrics(0.9, 0.01)}) == [0, 1, 3]
    assert trials.rank({}) == []
