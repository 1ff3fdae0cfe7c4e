"""Draw the trials of a sweep, and evaluate each by cross-validation."""

from __future__ import annotations

import itertools
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from scipy import stats
from sklearn.model_selection import ParameterSampler
from threadpoolctl import threadpool_limits

from pipeline.data.dataset import Dataset
from pipeline.errors import InvalidParameter
from pipeline.estimators import ESTIMATORS, Range
from pipeline.params.definitions import ALL_MODELS, SweepParams
from pipeline.params.fields import as_text
from pipeline.training import model_pipeline
from registry_tools.errors import error_summary, first_line

_MODEL = "model"  # among the arguments that are drawn
_DIGITS = 4  # of a drawn number; more would be noise wherever it is shown


@dataclass(frozen=True)
class Trial:
    """An estimator and its arguments."""

    model: str
    model_params: Mapping[str, Any]


@dataclass(frozen=True)
class TrialResult:
    """The result of one trial: metrics, or why there are none."""

    metrics: Mapping[str, float]
    failure: str | None = None
    warning: str | None = None  # the first that the estimator gave


def draw_trials(params: SweepParams) -> list[Trial]:
    """Draw the trials of a sweep; the same for the same seed, whatever runs where.

    Returns
    -------
    list
        `n_trials` different trials; fewer where there are not so many.

    Raises
    ------
    InvalidParameter
        If a model has no search space, or `model_params` leaves nothing of it.
    """
    names = list(ESTIMATORS) if params.model == ALL_MODELS else [params.model]
    spaces = [_search_space(name, params) for name in names]
    found: dict[str, Trial] = {}
    # What was drawn before is drawn again now and then, where a space is small.
    for drawn in itertools.islice(_sample(spaces, params), 20 * params.n_trials):
        model = drawn.pop(_MODEL)
        arguments = {key: _round_value(value) for key, value in sorted(drawn.items())}
        trial = Trial(model, {**arguments, **params.model_params})
        found.setdefault(f"{model} {as_text(trial.model_params)}", trial)
        if len(found) == params.n_trials:
            break
    return list(found.values())


def _search_space(name: str, params: SweepParams) -> dict[str, Any]:
    space = {
        key: _distribution(values)
        for key, values in ESTIMATORS[name].space.items()
        if key not in params.model_params
    }
    if not space:
        what = "all of it is fixed" if ESTIMATORS[name].space else "it has none in pipeline/estimators.py"
        raise InvalidParameter("model", name, f"has no search space: {what}")
    return {**space, _MODEL: [name]}


def _distribution(values: Range | tuple[Any, ...]) -> Any:
    if isinstance(values, tuple):
        return list(values)
    if values.is_integer:
        return stats.randint(int(values.low), int(values.high) + 1)
    if values.log:
        return stats.loguniform(values.low, values.high)
    return stats.uniform(values.low, values.high - values.low)


def _sample(spaces: Sequence[Mapping[str, Any]], params: SweepParams) -> Iterator[dict[str, Any]]:
    with warnings.catch_warnings():
        # Where all is choices, each is drawn once, and fewer than were asked for is no fault.
        warnings.filterwarnings("ignore", message="The total space of parameters")
        yield from ParameterSampler(spaces, n_iter=20 * params.n_trials, random_state=params.random_state)


def _round_value(value: Any) -> Any:
    """Return a drawn value as Python's own, a number with few digits."""
    value = value.item() if hasattr(value, "item") else value
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value


def evaluate_trial(
    trial: Trial, params: SweepParams, features: pd.DataFrame, training: Dataset
) -> TrialResult:
    """Score a trial by cross-validation; what it raises is its outcome.

    Parameters
    ----------
    trial
        What is tried.
    params
        Of the sweep.
    features
        All rows, only for their types and missing values.
    training
        The rows to learn from and to be scored on. The held-out rows are never seen here.
    """
    began = time.perf_counter()
    try:
        trained = params.train_params(trial.model, trial.model_params)
        # One thread: trials share the cores among them, and sums are the same wherever they run.
        with warnings.catch_warnings(record=True) as caught, threadpool_limits(1):
            warnings.simplefilter("always")
            metrics = model_pipeline.cross_validate(trained, features, training)
    except Exception as error:  # noqa: BLE001 - whatever an estimator raises is why it failed
        return TrialResult({}, failure=error_summary(error, 500))
    seconds = time.perf_counter() - began
    warned = first_line(caught[0].message) if caught else None
    return TrialResult({**metrics, "seconds": seconds}, warning=warned)


def rank_key(metrics: Mapping[str, float], place: int) -> tuple[float, float, int]:
    """Return what trials are sorted by: the most accurate, then the steadiest, then the first."""
    return (-metrics["cv_accuracy_mean"], metrics["cv_accuracy_std"], place)


def best_trial(metrics: Mapping[int, Mapping[str, float]]) -> int | None:
    """Return the place of the best trial; None of none."""
    return min(metrics, key=lambda place: rank_key(metrics[place], place), default=None)
