"""Fit the pipeline of a training, evaluate it on the holdout, and cross-validate it."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import joblib
import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.pipeline import Pipeline

from pipeline.data.dataset import Dataset
from pipeline.errors import InvalidParameter
from pipeline.params.definitions import TrainParams
from pipeline.training.early_stopping import uses_early_stopping
from pipeline.training.fit_pipeline import cross_validate, fit_and_stop_early
from pipeline.training.scoring import measure, metric_of, predict_outcomes, score
from registry_tools.stats.holdout_metrics import classification_metrics
from registry_tools.stats.metric import METRICS, Outcomes, metric_key
from registry_tools.task import REGRESSION

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FittedModel:
    """A fitted estimator with its parameters and rows, its predictions on the holdout and its metrics."""

    params: TrainParams  # resolved
    dataset: Dataset  # all rows; their types and missing values decide the preparation
    training: Dataset
    holdout: Dataset
    estimator: Pipeline
    predicted: npt.NDArray[np.int64] | npt.NDArray[np.float64]  # class codes or numbers, shape (rows,)
    outcomes: Outcomes  # of the holdout
    metrics: dict[str, float]
    losses: Mapping[str, Sequence[float]]  # by rows, `train` and `validation`: the loss of each iteration


def fit_model(params: TrainParams, dataset: Dataset, training: Dataset, holdout: Dataset) -> FittedModel:
    """Fit the pipeline to the training rows, and compute all metrics of the run.

    Parameters
    ----------
    params
        The resolved parameters of the training.
    dataset
        All rows.
    training, holdout
        The two parts of the rows.

    Raises
    ------
    InvalidParameter
        If the metric is undefined for the held-out rows.
    """
    names = dataset.target_names
    estimator, stop = fit_and_stop_early(params, dataset.features, training)
    outcomes = predict_outcomes(estimator, holdout)
    predicted = outcomes.predicted
    if names:
        predicted = pd.Index(names).get_indexer(predicted)
        values = classification_metrics(outcomes)
    else:
        values = {each.name: each.compute(outcomes) for each in METRICS if each.task == REGRESSION}
    metric, key = metric_of(params), metric_key(params.metric)
    values |= {key: measure(metric, outcomes), f"train/{key}": score(metric, estimator, training)}
    if math.isnan(values[key]):
        raise InvalidParameter("metric", params.metric, "is undefined for the held-out rows: hold out more")
    values = {name: value for name, value in values.items() if not math.isnan(value)}
    # Threads are faster than processes here: the folds of a small table take less time than the start
    # of a process, and the estimators release the interpreter lock during most of their work.
    with joblib.parallel_config("threading", n_jobs=-1):
        values |= cross_validate(params, dataset.features, training)
    if stop is None and uses_early_stopping(params):
        _log.warning("the training rows are too few for early stopping: %d iterations", params.max_iter)
    elif stop is not None:
        values["iterations"] = stop.iterations
    losses = {} if stop is None else stop.losses
    return FittedModel(params, dataset, training, holdout, estimator, predicted, outcomes, values, losses)
