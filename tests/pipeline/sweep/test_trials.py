"""Drawing the trials of a sweep, and evaluating each."""

from __future__ import annotations

import pytest

from pipeline.data.load import load_dataset
from pipeline.data.split import split_rows
from pipeline.errors import InvalidParameter
from pipeline.estimators import ESTIMATORS, Range
from pipeline.params.definitions import SweepParams
from pipeline.params.fields import as_text
from pipeline.sweep import trials
from pipeline.sweep.trials import Trial


def test_the_same_seed_draws_the_same_and_another_draws_others() -> None:
    first, again = (trials.draw_trials(SweepParams(n_trials=30)) for _ in range(2))
    assert first == again
    assert first != trials.draw_trials(SweepParams(n_trials=30, random_state=1))
    # Who asks for more finds the same at the beginning.
    assert trials.draw_trials(SweepParams(n_trials=60))[:30] == first


def test_no_two_trials_are_alike_and_a_small_space_is_drawn_whole() -> None:
    found = trials.draw_trials(SweepParams(model="knn", n_trials=200))
    texts = {as_text(trial.model_params) for trial in found}
    assert len(texts) == len(found) == 60  # 30 neighbours, 2 weights


@pytest.mark.parametrize("model", ESTIMATORS)
def test_what_is_drawn_lies_in_the_space_and_can_be_trained(model: str) -> None:
    params = SweepParams(model=model, n_trials=2, max_iter=50)
    dataset = load_dataset(params)
    training = dataset.take(split_rows(dataset, params)[0])
    for trial in trials.draw_trials(params):
        for key, value in trial.model_params.items():
            bounds = ESTIMATORS[model].space[key]
            inside = bounds.low <= value <= bounds.high if isinstance(bounds, Range) else True
            assert inside, key
            assert isinstance(bounds, Range) or value in bounds
        result = trials.evaluate_trial(trial, params, dataset.features, training)
        assert result.failure is None
        assert 0.3 <= result.metrics["cv_accuracy_mean"] <= 1


def test_all_models_are_drawn_from() -> None:
    found = trials.draw_trials(SweepParams(n_trials=100))
    assert {trial.model for trial in found} == set(ESTIMATORS)


def test_a_fixed_argument_stands_in_each_trial() -> None:
    params = SweepParams(model="svc", model_params={"kernel": "linear", "gamma": 1.0}, n_trials=5)
    for trial in trials.draw_trials(params):
        assert trial.model_params["kernel"] == "linear"
        assert trial.model_params["gamma"] == 1.0


def test_a_space_that_is_all_fixed_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="model=svc: has no search space: all of it"):
        trials.draw_trials(SweepParams(model="svc", model_params={"C": 1.0, "gamma": 1.0}))


def test_what_an_estimator_raises_is_the_result() -> None:
    params = SweepParams(model="knn")
    dataset = load_dataset(params)
    training = dataset.take(split_rows(dataset, params)[0])
    trial = Trial("knn", {"n_neighbors": 1000})
    result = trials.evaluate_trial(trial, params, dataset.features, training)
    assert result.metrics == {}
    assert "n_neighbors <= n_samples" in str(result.failure)


def test_the_best_is_the_most_accurate_then_the_steadiest_then_the_first() -> None:
    def metrics(mean: float, std: float) -> dict[str, float]:
        return {"cv_accuracy_mean": mean, "cv_accuracy_std": std}

    even = {3: metrics(0.9, 0.02), 1: metrics(0.9, 0.01), 0: metrics(0.8, 0.0)}
    assert trials.best_trial(even) == 1
    assert trials.best_trial(even | {0: metrics(0.9, 0.01)}) == 0
    assert trials.best_trial({}) is None
