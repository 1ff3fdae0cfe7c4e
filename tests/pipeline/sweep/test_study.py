"""Which parameters the trials of a sweep have, by each sampler."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, get_args

import pytest

from pipeline.errors import InvalidParameter
from pipeline.estimators import ESTIMATORS, EstimatorSpec, Range, models_of
from pipeline.params.definitions import ALL_MODELS, SweepParams
from pipeline.params.types import as_text
from pipeline.sweep.study import SweepStudy
from pipeline.training.model_card import Trial
from registry_tools.task import CLASSIFICATION

SAMPLERS = get_args(SweepParams.model_fields["sampler"].annotation)


def study_of(params: SweepParams) -> SweepStudy:
    models = models_of(CLASSIFICATION) if params.model == ALL_MODELS else [params.model]
    return SweepStudy(params, models)


def with_accuracy(trial: Trial, accuracy: float) -> Trial:
    return dataclasses.replace(trial, metrics={"cv/accuracy_mean": accuracy})


def asked(params: SweepParams, accuracy: Callable[[Trial], float] | None = None) -> list[Trial]:
    """Return the trials of a sweep, each told before the next is asked for."""
    study = study_of(params)
    found = []
    for number in range(params.n_trials):
        trial = study.ask(number)
        if trial is None:
            break
        found.append(trial)
        if accuracy is not None:
            study.tell(with_accuracy(trial, accuracy(trial)))
    return found


def near_one(trial: Trial) -> float:
    return 1 / (1 + abs(math.log(trial.params.model_params["C"])))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_seed_draws_the_same_and_another_draws_others(sampler: str) -> None:
    first, again = (asked(SweepParams(n_trials=30, sampler=sampler)) for _ in range(2))
    assert len(first) == 30
    assert first == again
    assert first != asked(SweepParams(n_trials=30, sampler=sampler, random_state=1))
    # Who asks for more finds the same at the beginning.
    assert asked(SweepParams(n_trials=60, sampler=sampler))[:30] == first


@pytest.mark.parametrize("sampler", ["random", "qmc", "tpe"])
def test_no_two_trials_are_alike_and_a_small_space_is_drawn_whole(sampler: str) -> None:
    found = asked(SweepParams(model="knn", n_trials=200, sampler=sampler), lambda _: 0.5)
    texts = {as_text(trial.params.model_params) for trial in found}
    assert len(texts) == len(found) == 60  # 30 neighbours, 2 weights


def test_a_grid_is_drawn_whole_and_the_default_once() -> None:
    found = asked(SweepParams(model="knn", n_trials=200, sampler="grid"))
    texts = {as_text(trial.params.model_params) for trial in found}
    # 5 of the 30 neighbours, 2 weights, and the default, whose 5 neighbours are not among them.
    assert len(texts) == len(found) == 11
    assert {trial.params.model_params["n_neighbors"] for trial in found} == {1, 5, 8, 16, 23, 30}


def test_a_grid_with_too_many_points_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    space = {name: tuple(range(50)) for name in ("n_neighbors", "leaf_size", "p")}
    monkeypatch.setitem(ESTIMATORS, "knn", dataclasses.replace(ESTIMATORS["knn"], space=space))
    with pytest.raises(InvalidParameter, match="sampler=grid: 125000 points for knn are too many: try qmc"):
        study_of(SweepParams(model="knn", sampler="grid"))


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("model", models_of(CLASSIFICATION))
def test_what_is_drawn_lies_in_the_space(model: str, sampler: str) -> None:
    for trial in asked(SweepParams(model=model, n_trials=15, sampler=sampler), lambda _: 0.5)[1:]:
        for key, value in trial.params.model_params.items():
            bounds = ESTIMATORS[model].space[key]
            inside = bounds.low <= value <= bounds.high if isinstance(bounds, Range) else value in bounds
            assert inside, key


def test_a_rounded_number_stays_within_its_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    space = {"C": Range(1.23455, 1.23456)}
    monkeypatch.setitem(ESTIMATORS, "svc", EstimatorSpec("sklearn.svm:SVC", space=space))
    values = [trial.params.model_params["C"] for trial in asked(SweepParams(model="svc", n_trials=3))]
    assert values[1:]
    assert all(1.23455 <= value <= 1.23456 for value in values[1:])


def test_the_untuned_default_comes_first() -> None:
    first = asked(SweepParams(model="svc", n_trials=2, model_params={"kernel": "linear"}))[0]
    assert first.params.model_params == {"C": 1.0, "gamma": "scale", "kernel": "linear"}
    found = asked(SweepParams(n_trials=7))
    assert [trial.params.model for trial in found] == models_of(CLASSIFICATION)
    assert found[0].params.model_params == {"C": 1.0, "class_weight": None}


def test_all_models_take_turns() -> None:
    found = asked(SweepParams(n_trials=70))
    assert [trial.params.model for trial in found] == models_of(CLASSIFICATION) * 10


def test_a_model_whose_space_is_exhausted_leaves_its_turns_to_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    space: dict[str, Any] = {"weights": ("uniform", "distance")}
    monkeypatch.setitem(ESTIMATORS, "knn", dataclasses.replace(ESTIMATORS["knn"], space=space))
    found = asked(SweepParams(n_trials=40))
    assert len(found) == 40
    assert sum(trial.params.model == "knn" for trial in found) == 2


def test_a_fixed_argument_stands_in_each_trial() -> None:
    params = SweepParams(model="svc", model_params={"kernel": "linear", "gamma": 1.0}, n_trials=5)
    for trial in asked(params):
        assert trial.params.model_params["kernel"] == "linear"
        assert trial.params.model_params["gamma"] == 1.0


def test_a_space_that_is_all_fixed_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="model=svc: has no search space: all of it"):
        study_of(SweepParams(model="svc", model_params={"C": 1.0, "gamma": 1.0}))


def test_tpe_draws_near_the_best() -> None:
    def distance(sampler: str) -> float:
        params = SweepParams(model="logistic_regression", n_trials=60, sampler=sampler)
        later = asked(params, near_one)[30:]
        return sum(abs(math.log(trial.params.model_params["C"])) for trial in later) / len(later)

    assert distance("tpe") < distance("random") / 2


def test_tpe_keeps_the_best_of_many_trials_and_not_all() -> None:
    params = SweepParams(model="logistic_regression", n_trials=450, sampler="tpe")
    study = study_of(params)
    values = []
    for number in range(params.n_trials):
        trial = study.ask(number)
        assert trial is not None
        values.append(near_one(trial))
        study.tell(with_accuracy(trial, values[-1]))
    known = study._studies["logistic_regression"].get_trials()
    assert len(known) <= 2 * 201  # each trial that was told, and its draw
    assert -min(trial.value for trial in known if trial.value is not None) == max(values[1:])
