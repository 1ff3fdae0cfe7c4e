"""Fit the pipeline of a training with its weights, calibration and threshold, and cross-validate it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.pipeline import Pipeline
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import has_fit_parameter

from pipeline.data.dataset import Dataset, quoted_values
from pipeline.data.folds import Rows, divide_units, make_folds
from pipeline.errors import InvalidParameter, PipelineError
from pipeline.estimators import ESTIMATORS
from pipeline.params.definitions import TrainParams
from pipeline.params.types import AUTO, as_text
from pipeline.training.early_stopping import EarlyStop, stop_early
from pipeline.training.model_pipeline import build_pipeline, create_estimator
from pipeline.training.preparation import forget_folds
from pipeline.training.scoring import mean_key, metric_of, scorer, std_key
from registry_tools.errors import InputError
from registry_tools.stats.metric import Metric, Outcomes, find_metric
from registry_tools.task import CLASSIFICATION

_MOST_THRESHOLDS = 200  # of which the best is chosen


def check_fit(params: TrainParams, training: Dataset) -> None:
    """Check weights, calibration, threshold and metric before a run is opened.

    Raises
    ------
    InvalidParameter
        If the task, the classes or the estimator do not allow one of them.
    """
    names = training.target_names
    for name in ("class_weight", "calibrate", "threshold"):
        value = getattr(params, name)
        if not names and value not in (None, AUTO, "none"):
            raise InvalidParameter(name, as_text(value), f"{training.target!r} holds numbers, not classes")
    if isinstance(params.class_weight, dict) and (unknown := set(params.class_weight) - set(names)):
        known = f"{quoted_values(sorted(unknown))} is no class; the classes are {quoted_values(names)}"
        raise InvalidParameter("class_weight", as_text(params.class_weight), known)
    if params.threshold is not None:
        _threshold_metric(params, training)
    if params.model not in ESTIMATORS:
        return
    estimator = create_estimator(params)
    if _sample_weights(params, training) is not None and not has_fit_parameter(estimator, "sample_weight"):
        weighted = "weight" if params.weight is not None else "class_weight"
        value = as_text(getattr(params, weighted))
        raise InvalidParameter(weighted, value, f"{params.model} takes no weights")
    has_scores = hasattr(estimator, "predict_proba") or hasattr(estimator, "decision_function")
    if params.calibrate in {"sigmoid", "isotonic"} and not has_scores:
        raise InvalidParameter("calibrate", params.calibrate, f"{params.model} has nothing to calibrate")
    _check_probabilities(params, training, estimator)


def _check_probabilities(params: TrainParams, training: Dataset, estimator: BaseEstimator) -> None:
    """Check that each fit has the probabilities, and the folds to compute them on, that it needs."""
    needs_them = {} if params.threshold is None else {"threshold": params.threshold}
    if training.target_names and metric_of(params).needs_probabilities:
        needs_them["metric"] = params.metric
    if not needs_them:
        return
    is_calibrated = not hasattr(estimator, "predict_proba")
    has_scores = params.calibrate != "none" and hasattr(estimator, "decision_function")
    fits = [training, *(training.take(fitted) for fitted, _ in make_folds(training, params))]
    for name, value in needs_them.items():
        if is_calibrated and not has_scores:
            without = f"{params.model} has no probabilities with calibrate={params.calibrate}"
            raise InvalidParameter(name, value, f"{without}: take calibrate=sigmoid, or another model")
        inner = [divide_units(each, params) for each in fits if name == "threshold" or is_calibrated]
        if name == "threshold" and is_calibrated:
            pairs = zip(fits, list(inner), strict=True)
            inner += [divide_units(each.take(rows), params) for each, folds in pairs for rows, _ in folds]
        if not all(inner):
            purpose = "calibrated probabilities" if name == "metric" else name
            fix = f"take more rows of each class, or another {name}"
            raise InvalidParameter(name, value, f"a class has too few rows for the folds of {purpose}: {fix}")


def fit_pipeline(params: TrainParams, features: pd.DataFrame, training: Dataset) -> Pipeline:
    """Return the pipeline of a training, fitted; the parameters are those of `fit_and_stop_early`."""
    return fit_and_stop_early(params, features, training)[0]


def fit_and_stop_early(
    params: TrainParams, features: pd.DataFrame, training: Dataset
) -> tuple[Pipeline, EarlyStop | None]:
    """Return the pipeline of a training, fitted to all its rows, and how early stopping chose the iterations.

    Calibration and threshold are chosen on folds of the training rows, which keep units whole.

    Parameters
    ----------
    params
        The resolved parameters of the training.
    features
        All rows, shape (rows, columns). Their types and missing values decide the preparation.
    training
        The rows to fit.
    """
    weights = _sample_weights(params, training)
    stop = stop_early(params, features, training, weights)
    folds = divide_units(training, params)
    final = params if stop is None else params.replace(max_iter=stop.iterations)
    pipeline = build_pipeline(final, features, folds)
    weighting = {} if weights is None else {"model__sample_weight": weights}
    pipeline.fit(training.features, training.labels, **weighting)
    forget_folds(pipeline)
    if params.threshold is not None:
        threshold = _best_threshold(params, features, training, folds)
        pipeline.steps[-1] = ("model", _with_threshold(pipeline, threshold, training))
    return pipeline, stop


def _sample_weights(params: TrainParams, training: Dataset) -> npt.NDArray[np.float64] | None:
    """Return the product of row weight and class weight, shape (rows,); None without weights."""
    if params.class_weight is None:
        return training.weights
    by_class: Any = params.class_weight
    if not isinstance(by_class, str):
        by_class = {code: by_class.get(name, 1) for code, name in enumerate(training.target_names)}
    weights = compute_sample_weight(by_class, training.labels)
    return weights if training.weights is None else weights * training.weights


def _threshold_metric(params: TrainParams, training: Dataset) -> Metric:
    value = str(params.threshold)
    if len(training.target_names) != 2:
        classes = len(training.target_names)
        raise InvalidParameter("threshold", value, f"needs two classes, {training.target!r} has {classes}")
    try:
        metric = find_metric(value, CLASSIFICATION)
    except InputError as error:
        raise InvalidParameter("threshold", value, str(error).partition(": ")[2]) from error
    if metric.needs_probabilities:
        fix = "does not depend on a threshold: take f1_macro, or another"
        raise InvalidParameter("threshold", value, fix)
    return metric


def _best_threshold(
    params: TrainParams, features: pd.DataFrame, training: Dataset, folds: list[tuple[Rows, Rows]]
) -> float:
    """Return the probability of the second class from which to predict it; of equal ones, nearest to 0.5."""
    plain, metric = params.replace(threshold=None), _threshold_metric(params, training)
    found = np.empty(len(training.labels))
    for fitted, tested in folds:
        model = fit_pipeline(plain, features, training.take(fitted))
        found[tested] = model.predict_proba(training.features.iloc[tested])[:, 1]
    names, labels = np.asarray(training.target_names, dtype=object), training.label_values()
    possible = np.unique(np.quantile(found, np.linspace(0, 1, _MOST_THRESHOLDS), method="nearest"))
    best, value = 0.5, float("nan")
    for threshold in sorted((0.5, *possible.tolist()), key=lambda each: abs(each - 0.5)):
        other = metric.compute(Outcomes(labels, names[(found >= threshold).astype(int)]))
        if np.isnan(value) or metric.is_better(other, value):
            best, value = threshold, other
    return best


def _with_threshold(pipeline: Pipeline, threshold: float, training: Dataset) -> BaseEstimator:
    fixed = FixedThresholdClassifier(
        FrozenEstimator(pipeline[-1]), threshold=threshold, pos_label=1, response_method="predict_proba"
    )
    prepared = pipeline[:-1].transform(training.features) if len(pipeline) > 1 else training.features
    return fixed.fit(prepared, training.labels)


def cross_validate(params: TrainParams, features: pd.DataFrame, training: Dataset) -> dict[str, float]:
    """Return mean and standard deviation of the metric over folds of the training rows.

    A fold for which the metric is undefined does not count.

    Parameters
    ----------
    params, features
        As for `fit_pipeline`; `metric` is used too.
    training
        The training rows. With too few for two folds, the result is empty.

    Raises
    ------
    PipelineError
        If the metric is undefined in each fold.
    """
    metric = metric_of(params)
    score = scorer(metric, training.target_names)

    def score_fold(fitted: Rows, tested: Rows) -> float:
        model = fit_pipeline(params, features, training.take(fitted))
        return score(model, training.features.iloc[tested], training.labels.iloc[tested])

    scores = np.array(Parallel()(delayed(score_fold)(*fold) for fold in make_folds(training, params)))
    if not len(scores):
        return {}
    scores = scores[~np.isnan(scores)]
    if not len(scores):
        raise PipelineError(f"metric={metric.name}: it is undefined in each fold; take more rows")
    return {mean_key(metric.name): float(scores.mean()), std_key(metric.name): float(scores.std())}
