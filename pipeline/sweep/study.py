"""Which parameters each trial has: an Optuna study for each estimator, held in memory.

The first trial of each estimator has its untuned defaults. After that the estimators take turns, and no
two trials are alike. The children of a sweep's run are the record of its study.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna import distributions, samplers
from optuna.trial import TrialState, create_trial

from pipeline.errors import InvalidParameter
from pipeline.estimators import ESTIMATORS, Range
from pipeline.params.definitions import SweepParams
from pipeline.training.model_card import Trial
from pipeline.training.model_pipeline import effective_arguments
from pipeline.training.scoring import metric_of

_DIGITS = 4  # significant digits of a drawn number; more would only be noise in the UI
_GRID_POINTS, _MAX_GRID = 5, 100_000  # of a range; of a grid
_DRAWS, _TPE_DRAWS = 1000, 10  # without a new trial, until a space counts as exhausted; of them by TPE
# TPE takes longer the more trials it knows. It compares the best tenth, at most 25, with all others. Of
# more than `_MAX_KNOWN` trials the study keeps the best and the latest.
_MAX_KNOWN, _KEPT = 200, 50

Space = dict[str, distributions.BaseDistribution]


class SweepStudy:
    """The trials of a sweep, asked and told in one thread."""

    def __init__(self, params: SweepParams, models: Sequence[str]) -> None:
        """Prepare the search spaces.

        Parameters
        ----------
        params
            Of the sweep.
        models
            The names of the estimators to try.

        Raises
        ------
        InvalidParameter
            If a model has no search space, `model_params` leaves nothing of it, or a grid is too large.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.models = models
        self.learns = params.sampler == "tpe"
        self._is_loss = metric_of(params).less_is_better
        self._params = params
        with warnings.catch_warnings():
            # Optuna warns that QMC is experimental and that its files cannot hold tuples.
            warnings.simplefilter("ignore")
            self._spaces = {model: _search_space(model, params) for model in models}
            self._studies = {model: self._open_study(model) for model in models}
        self.unexhausted = list(models)  # models whose search space has points that were not tried
        self._accepted: dict[str, Trial] = {}

    def _open_study(self, model: str) -> optuna.Study:
        return optuna.create_study(sampler=_sampler(self._params, model, self._spaces[model]))

    def ask(self, number: int) -> Trial | None:
        """Return the next trial, or None if every point of the search spaces was tried.

        Ask for the numbers in their order: the same seed then gives the same trials. Those of `tpe`
        depend on the results that it was told before.
        """
        if number < len(self.models):
            model = self.models[number]
            values = effective_arguments(self._params.train_params(model, {}))
            return self.accept(number, model, values)
        while self.unexhausted:
            model = self.unexhausted[number % len(self.unexhausted)]
            for attempt in range(2 if self._params.sampler == "grid" else _DRAWS):
                if trial := self.accept(number, model, self._draw(model, number, attempt)):
                    return trial
            self.unexhausted.remove(model)
        return None

    def accept(self, number: int, model: str, values: Mapping[str, Any]) -> Trial | None:
        """Return a trial, or None if there was the same before."""
        trial = Trial(number, self._params.train_params(model, {**values, **self._params.model_params}))
        first = self._accepted.setdefault(str(trial.as_text()), trial)
        return trial if first is trial else None

    def _draw(self, model: str, number: int, attempt: int) -> dict[str, Any]:
        study = self._studies[model]
        if self.learns:
            # A seed for each draw: a resumed sweep draws as if it had never been interrupted.
            seed = np.random.SeedSequence([self._params.random_state, number, attempt]).generate_state(1)[0]
            sampler = samplers.TPESampler if attempt < _TPE_DRAWS else samplers.RandomSampler
            study.sampler = sampler(seed=int(seed))
        asked = study.ask(self._spaces[model])
        if self.learns:
            study.tell(asked, state=TrialState.FAIL)  # `tell` adds it with rounded numbers
        return {key: _round_value(value, asked.distributions[key]) for key, value in asked.params.items()}

    def tell(self, trial: Trial) -> None:
        """Tell the metric of a trial, for `tpe` to learn from; a default may lie outside of the space."""
        if not self.learns or trial.number < len(self.models):
            return
        model, given = trial.params.model, trial.params.model_params
        space, study = self._spaces[model], self._studies[model]
        # The parameters of a training are JSON, which has no tuples.
        told = {key: tuple(given[key]) if isinstance(given[key], list) else given[key] for key in space}
        loss = trial.value if self._is_loss else -trial.value
        study.add_trial(create_trial(params=told, distributions=space, value=loss))
        known = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        if len(known) > _MAX_KNOWN:
            best = sorted(known[:-_KEPT], key=lambda each: each.value or 0.0)[:_KEPT]
            self._studies[model] = self._open_study(model)
            self._studies[model].add_trials([*best, *known[-_KEPT:]])


def _search_space(model: str, params: SweepParams) -> Space:
    space = ESTIMATORS[model].space
    found = {key: _distribution(values) for key, values in space.items() if key not in params.model_params}
    if not found:
        what = "all of it is fixed" if space else "it has none in pipeline/estimators.py"
        raise InvalidParameter("model", model, f"has no search space: {what}")
    return found


def _distribution(values: Range | tuple[Any, ...]) -> distributions.BaseDistribution:
    if isinstance(values, tuple):
        return distributions.CategoricalDistribution(values)
    if values.is_integer:
        return distributions.IntDistribution(int(values.low), int(values.high), values.log)
    return distributions.FloatDistribution(values.low, values.high, values.log)


def _sampler(params: SweepParams, model: str, space: Space) -> samplers.BaseSampler:
    if params.sampler == "grid":
        grid = {key: _grid_points(ESTIMATORS[model].space[key]) for key in space}
        size = math.prod(map(len, grid.values()))
        if size > _MAX_GRID:
            raise InvalidParameter("sampler", "grid", f"{size} points for {model} are too many: try qmc")
        return samplers.GridSampler(grid, params.random_state)
    if params.sampler == "qmc":
        return samplers.QMCSampler(scramble=True, seed=params.random_state)
    return samplers.RandomSampler(params.random_state)


def _grid_points(values: Range | tuple[Any, ...]) -> list[Any]:
    """Return the values of a choice, or some of a range at equal distances."""
    if isinstance(values, tuple):
        return list(values)
    points = (np.geomspace if values.log else np.linspace)(values.low, values.high, _GRID_POINTS)
    return list(dict.fromkeys(map(round, points))) if values.is_integer else points.tolist()


def _round_value(value: Any, distribution: distributions.BaseDistribution) -> Any:
    if not isinstance(distribution, distributions.FloatDistribution):
        return value
    return min(max(float(f"{value:.{_DIGITS}g}"), distribution.low), distribution.high)
