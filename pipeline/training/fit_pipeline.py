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

from pipeline.data.dataset import Dataset
from pipeline.data.folds import Rows, divide_units, make_folds
from pipeline.errors import InvalidParameter, PipelineError
from pipeline.params.definitions import TrainParams
from pipeline.training.early_stopping import EarlyStop, stop_early
from pipeline.training.model_pipeline import build_pipeline
from pipeline.training.preparation import forget_folds
from pipeline.training.scoring import find_given_metric, mean_key, metric_of, score, std_key
from registry_tools.stats.metric import Metric, Outcomes
from registry_tools.task import CLASSIFICATION

_MOST_THRESHOLDS = 200  # of which the best is chosen


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
    weights = sample_weights(params, training)
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


def sample_weights(params: TrainParams, training: Dataset) -> npt.NDArray[np.float64] | None:
    """Return the product of row weight and class weight, shape (rows,); None without weights."""
    if params.class_weight is None:
        return training.weights
    by_class: Any = params.class_weight
    if not isinstance(by_class, str):
        by_class = {code: by_class.get(name, 1) for code, name in enumerate(training.target_names)}
    weights = compute_sample_weight(by_class, training.labels)
    return weights if training.weights is None else weights * training.weights


def threshold_metric(params: TrainParams, training: Dataset) -> Metric:
    """Return the metric by which the threshold is chosen.

    Raises
    ------
    InvalidParameter
        If there are not two classes, or the metric does not depend on a threshold.
    """
    value = str(params.threshold)
    if len(training.target_names) != 2:
        classes = len(training.target_names)
        raise InvalidParameter("threshold", value, f"needs two classes, {training.target!r} has {classes}")
    metric = find_given_metric("threshold", value, CLASSIFICATION)
    if metric.needs_probabilities:
        fix = "does not depend on a threshold: take f1_macro, or another"
        raise InvalidParameter("threshold", value, fix)
    return metric


def _best_threshold(
    params: TrainParams, features: pd.DataFrame, training: Dataset, folds: list[tuple[Rows, Rows]]
) -> float:
    """Return the probability of the second class from which to predict it; of equal ones, nearest to 0.5."""
    plain, metric = params.replace(threshold=None), threshold_metric(params, training)
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

    def score_fold(fitted: Rows, tested: Rows) -> float:
        model = fit_pipeline(params, features, training.take(fitted))
        return score(metric, model, training.take(tested))

    scores = np.array(Parallel()(delayed(score_fold)(*fold) for fold in make_folds(training, params)))
    if not len(scores):
        return {}
    scores = scores[~np.isnan(scores)]
    if not len(scores):
        raise PipelineError(f"metric={metric.name}: it is undefined in each fold; take more rows")
    return {mean_key(metric.name): float(scores.mean()), std_key(metric.name): float(scores.std())}
