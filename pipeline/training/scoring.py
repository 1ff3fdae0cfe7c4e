"""Score fitted estimators by the metric of a training, and compare with always predicting the same."""

from __future__ import annotations

import difflib
import logging
import math
from typing import Any

import numpy as np

from pipeline.data.dataset import Dataset, quoted_values
from pipeline.errors import InvalidParameter
from pipeline.params.definitions import TrainParams
from pipeline.params.types import AUTO
from registry_tools.data.prediction_shape import check_predictions
from registry_tools.errors import InputError
from registry_tools.evaluation.gates.baseline import constant_predictions
from registry_tools.stats.metric import Metric, Outcomes, find_metric, metric_key
from registry_tools.task import CLASSIFICATION, DEFAULT_METRICS, REGRESSION

_log = logging.getLogger(__name__)


def resolve_metric(params: TrainParams, dataset: Dataset) -> str:
    """Return the name of the metric that a training decides by, where `auto` is the default of the task.

    Raises
    ------
    InvalidParameter
        If the task has no such metric, or `recall:CLASS` names no class of the table.
    """
    name = DEFAULT_METRICS[dataset.task] if params.metric == AUTO else params.metric
    find_given_metric("metric", name, dataset.task)
    kind, _, label = name.partition(":")
    if kind in {"recall", "precision"} and label not in dataset.target_names:
        near = difflib.get_close_matches(label, dataset.target_names, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        known = f"{hint}{dataset.target!r} has the classes {quoted_values(dataset.target_names)}"
        raise InvalidParameter("metric", name, known)
    return name


def find_given_metric(parameter: str, name: str, task: str) -> Metric:
    """Return the metric that a parameter names.

    Raises
    ------
    InvalidParameter
        If the task has no such metric, or a function cannot be imported.
    """
    try:
        return find_metric(name, task)
    except InputError as error:
        raise InvalidParameter(parameter, name, str(error).removeprefix(f"metric={name}: ")) from error


def metric_of(params: TrainParams) -> Metric:
    """Return the metric of a training; `auto` stands for that of a classification."""
    task = REGRESSION if params.task == REGRESSION else CLASSIFICATION
    return find_metric(DEFAULT_METRICS[task] if params.metric == AUTO else params.metric, task)


def mean_key(name: str) -> str:
    """Return the name under which a run logs the mean of a metric over the folds."""
    return f"cv/{metric_key(name)}_mean"


def std_key(name: str) -> str:
    """Return the name under which a run logs the standard deviation of a metric over the folds."""
    return f"cv/{metric_key(name)}_std"


def format_value(value: float) -> str:
    """Return a value of a metric with four decimals, or six digits if it is large."""
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:.6g}"


def predict_outcomes(estimator: Any, rows: Dataset, with_probabilities: bool = True) -> Outcomes:
    """Predict labelled rows.

    Parameters
    ----------
    estimator
        A fitted estimator.
    rows
        The rows.
    with_probabilities
        Whether to predict probabilities too, if the estimator has them.
    """
    count, names = len(rows.labels), np.asarray(rows.target_names, dtype=object)
    predicted = check_predictions(estimator.predict(rows.features), count)
    if not rows.target_names:
        return Outcomes(rows.label_values(), np.asarray(predicted, dtype="float64").reshape(count))
    probabilities = None
    if with_probabilities and hasattr(estimator, "predict_proba"):
        found = check_predictions(estimator.predict_proba(rows.features), count, "predict_proba")
        probabilities = np.zeros((count, len(names)))
        # A fold may lack a class, and then its estimator has no column for it.
        probabilities[:, np.asarray(getattr(estimator, "classes_", range(len(names))))] = found
    return Outcomes(rows.label_values(), names[predicted], probabilities, rows.target_names)


def measure(metric: Metric, outcomes: Outcomes) -> float:
    """Return the value of a metric; a model that never predicts the class has a precision of 0."""
    value = metric.compute(outcomes)
    return 0.0 if math.isnan(value) and metric.name.startswith("precision:") else value


def score(metric: Metric, estimator: Any, rows: Dataset) -> float:
    """Return the value of a metric for the predictions of an estimator on labelled rows."""
    return measure(metric, predict_outcomes(estimator, rows, metric.needs_probabilities))


def warn_if_no_better_than_constant(metric: Metric, outcomes: Outcomes, value: float) -> None:
    """Warn if the constant prediction that suits the metric has the same or a better value.

    Parameters
    ----------
    metric, value
        The metric of the training, and its value on the holdout.
    outcomes
        The holdout.
    """
    constant, title = constant_predictions(metric, outcomes)
    other = measure(metric, constant)
    if math.isnan(other) or metric.is_better(value, other):
        return
    shown = f"{metric.name} is {format_value(other)} on the held-out rows"
    if metric.name == "accuracy":
        shown = f"correct on {format_value(other)} of the held-out rows"
    _log.warning("no better than always predicting %s: %s", title, shown)
