"""What a sweep draws, and how it scores what it drew."""

from __future__ import annotations

import pytest

from pipeline.data import dataset as data
from pipeline.errors import InvalidParameter
from pipeline.estimators import MODELS, Between
from pipeline.params.definitions import SweepParams
from pipeline.params.fields import as_text
from pipeline.sweep import candidates
from pipeline.sweep.candidates import Candidate


def test_the_same_seed_draws_the_same_and_another_draws_others() -> None:
    first, again = (candidates.candidates(SweepParams(n_trials=30)) for _ in range(2))
    assert first == again
    assert first != candidates.candidates(SweepParams(n_trials=30, random_state=1))
    # Who asks for more finds the same at the beginning.
    assert candidates.candidates(SweepParams(n_trials=60))[:30] == first


def test_no_two_candidates_are_alike_and_a_small_space_is_drawn_whole() -> None:
    found = candidates.candidates(SweepParams(model="knn", n_trials=200))
    texts = {as_text(candidate.model_params) for candidate in found}
    assert len(texts) == len(found) == 60  # 30 neighbours, 2 weights


@pytest.mark.parametrize("model", MODELS)
def test_what_is_drawn_lies_in_the_space_and_can_be_trained(model: str) -> None:
    params = SweepParams(model=model, n_trials=2, max_iter=50)
    dataset = data.load(params)
    training = dataset.take(data.split(dataset, params)[0])
    for candidate in candidates.candidates(params):
        for key, value in candidate.model_params.items():
            bounds = MODELS[model].space[key]
            inside = bounds.low <= value <= bounds.high if isinstance(bounds, Between) else True
            assert inside, key
            assert isinstance(bounds, Between) or value in bounds
        outcome = candidates.evaluate(candidate, params, dataset.features, training)
        assert outcome.failure is None
        assert 0.3 <= outcome.figures["cv_accuracy_mean"] <= 1


def test_all_models_are_drawn_from() -> None:
    found = candidates.candidates(SweepParams(n_trials=100))
    assert {candidate.model for candidate in found} == set(MODELS)


def test_a_fixed_argument_stands_in_each_candidate() -> None:
    params = SweepParams(model="svc", model_params={"kernel": "linear", "gamma": 1.0}, n_trials=5)
    for candidate in candidates.candidates(params):
        assert candidate.model_params["kernel"] == "linear"
        assert candidate.model_params["gamma"] == 1.0


def test_a_space_that_is_all_fixed_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="model=svc: has no search space: all of it"):
        candidates.candidates(SweepParams(model="svc", model_params={"C": 1.0, "gamma": 1.0}))


def test_what_an_estimator_raises_is_the_outcome() -> None:
    params = SweepParams(model="knn")
    dataset = data.load(params)
    training = dataset.take(data.split(dataset, params)[0])
    candidate = Candidate("knn", {"n_neighbors": 1000})
    outcome = candidates.evaluate(candidate, params, dataset.features, training)
    assert outcome.figures == {}
    assert "n_neighbors <= n_samples" in str(outcome.failure)


def test_the_best_is_the_most_accurate_then_the_steadiest_then_the_first() -> None:
    def figures(mean: float, std: float) -> dict[str, float]:
        return {"cv_accuracy_mean": mean, "cv_accuracy_std": std}

    even = {3: figures(0.9, 0.02), 1: figures(0.9, 0.01), 0: figures(0.8, 0.0)}
    assert candidates.best(even) == 1
    assert candidates.best(even | {0: figures(0.9, 0.01)}) == 0
    assert candidates.best({}) is None
