"""A trial of a sweep: its parameters, and its evaluation by cross-validation."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from threadpoolctl import threadpool_limits

from pipeline.data.dataset import Dataset
from pipeline.params.definitions import SweepParams
from pipeline.params.fields import as_text
from pipeline.training import model_pipeline
from registry_tools.errors import error_summary, first_line

METRIC, SPREAD = "cv_accuracy_mean", "cv_accuracy_std"


@dataclass(frozen=True)
class Trial:
    """An estimator and its arguments; numbers of trials begin at 0."""

    number: int
    model: str
    model_params: Mapping[str, Any]

    def as_text(self) -> dict[str, str]:
        """Return the parameters as MLflow logs them."""
        return {"model": self.model, **{key: as_text(value) for key, value in self.model_params.items()}}


@dataclass(frozen=True)
class TrialResult:
    """The metrics of a trial, or why there are none."""

    metrics: Mapping[str, float]
    failure: str | None = None
    warning: str | None = None  # the first that the estimator gave


def evaluate_trial(
    trial: Trial, params: SweepParams, features: pd.DataFrame, training: Dataset
) -> TrialResult:
    """Evaluate a trial by cross-validation; an exception of the estimator is its result.

    Parameters
    ----------
    trial
        The estimator and its arguments.
    params
        Of the sweep.
    features
        All rows, only for their types and missing values.
    training
        The rows of the cross-validation. Held-out rows are never seen here.
    """
    began = time.perf_counter()
    try:
        trained = params.train_params(trial.model, trial.model_params)
        # One thread: trials share the cores among them, and sums are the same wherever they run.
        with warnings.catch_warnings(record=True) as caught, threadpool_limits(1):
            warnings.simplefilter("always")
            metrics = model_pipeline.cross_validate(trained, features, training)
    except Exception as error:  # noqa: BLE001 - any error of an estimator is the result of its trial
        return TrialResult({}, failure=error_summary(error, 500))
    seconds = time.perf_counter() - began
    warned = first_line(caught[0].message) if caught else None
    return TrialResult({**metrics, "seconds": seconds}, warning=warned)


def rank(metrics: Mapping[int, Mapping[str, float]]) -> list[int]:
    """Return the numbers of trials: the most accurate first, then the steadiest, then the earliest."""
    return sorted(metrics, key=lambda number: (-metrics[number][METRIC], metrics[number][SPREAD], number))
