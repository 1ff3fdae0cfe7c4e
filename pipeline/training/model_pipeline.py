"""Build the scikit-learn pipeline of a training, and check its parameters.

The pipeline begins with the preparation of the columns, if they need one, and ends with the estimator. A
classifier without probabilities is calibrated.
"""

from __future__ import annotations

import logging
import pkgutil
from typing import Any, TypeVar

import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.data.dataset import Dataset
from pipeline.data.folds import Rows
from pipeline.errors import InvalidParameter
from pipeline.estimators import DEFAULT_MODELS, ESTIMATORS, models_of
from pipeline.params.definitions import TrainParams
from pipeline.params.types import AUTO, as_text
from pipeline.training.preparation import column_transformer
from pipeline.training.scoring import resolve_metric
from registry_tools.task import CLASSIFICATION, REGRESSION

ParamsType = TypeVar("ParamsType", bound=TrainParams)

_log = logging.getLogger(__name__)

_NOT_SETTABLE = ("verbose", "verbosity", "callbacks", "early_stopping_rounds")


def build_pipeline(params: TrainParams, features: pd.DataFrame, folds: list[tuple[Rows, Rows]]) -> Pipeline:
    """Return the untrained pipeline for a table.

    Parameters
    ----------
    params
        The parameters of the training; `model`, `model_params`, `max_iter` and `random_state` are used.
    features
        All rows, shape (rows, columns). Their types and missing values decide the preparation.
    folds
        Positions of the rows that the pipeline will be fitted to, for calibration and encoding by labels;
        empty for none.

    Raises
    ------
    InvalidParameter
        If `model_params` has a key that the estimator does not know.
    """
    steps: list[tuple[str, Any]] = []
    preparation = column_transformer(features, params, folds)
    if preparation is None and ESTIMATORS[params.model].stops_early:
        # XGBoost and LightGBM refuse some names of columns, so they get an array.
        preparation = ColumnTransformer([("numbers", "passthrough", list(features))])
    if preparation is not None:
        steps.append(("prepare", preparation))
    estimator = create_estimator(params)
    if params.task != REGRESSION:
        estimator = _calibrate(estimator, params.calibrate, folds)
    elif ESTIMATORS[params.model].scales_target:
        # The labels get mean 0 and standard deviation 1.
        estimator = TransformedTargetRegressor(estimator, transformer=StandardScaler())
    steps.append(("model", estimator))
    return Pipeline(steps)


def resolve_model(params: ParamsType, dataset: Dataset) -> ParamsType:
    """Return parameters with the task, the metric and the model that `auto` stands for.

    Raises
    ------
    InvalidParameter
        If the model or the metric is one of another task.
    """
    model = DEFAULT_MODELS[dataset.task] if params.model == AUTO else params.model
    if model in ESTIMATORS and not ESTIMATORS[model].factory_of(dataset.task):
        models = ", ".join(models_of(dataset.task))
        other = next(task for task in DEFAULT_MODELS if task != dataset.task)
        needed = f"{dataset.target!r} needs a {dataset.task}: take one of {models}, or set task={other}"
        raise InvalidParameter("model", model, needed)
    return params.replace(task=dataset.task, metric=resolve_metric(params, dataset), model=model)


def effective_arguments(params: TrainParams) -> dict[str, Any]:
    """Return the arguments that a sweep varies and those that were given, with the values in effect."""
    values = create_estimator(params).get_params()
    return {name: values[name] for name in {**ESTIMATORS[params.model].space, **params.model_params}}


def invalid_model_params(params: TrainParams, reason: object) -> InvalidParameter:
    """Return the error of `model_params` that the estimator, the table or the loader does not allow."""
    text = " ".join(str(reason).split())
    return InvalidParameter("model_params", as_text(params.model_params), text)


def create_estimator(params: TrainParams) -> BaseEstimator:
    """Return the unfitted estimator of a training, without the preparation of columns.

    Raises
    ------
    InvalidParameter
        If `model_params` has a key that the estimator does not know, or its package is not installed.
    """
    model = ESTIMATORS[DEFAULT_MODELS[CLASSIFICATION] if params.model == AUTO else params.model]
    if not model.is_installed(params.task):
        fix = "pip install '.[boosting]'" if model.stops_early else "install it"
        lacking = f"the package {model.package_of(params.task)} is not installed"
        raise InvalidParameter("model", params.model, f"{lacking}: {fix}")
    own = {model.renamed.get(key, key): key.rpartition("__")[2] for key in model.takes}
    estimator = pkgutil.resolve_name(model.factory_of(params.task))()
    is_pipeline = isinstance(estimator, Pipeline)  # of which only the arguments of its steps can be set
    settable = {name for name in estimator.get_params() if "__" in name or not is_pipeline}
    # `max_iter` and `random_state` have parameters of their own; `verbose` would print to stdout.
    valid = sorted(name for name in settable - set(own) if not name.endswith(_NOT_SETTABLE))
    if unknown := sorted(set(params.model_params) - set(valid)):
        hint = f"; use the parameter {own[unknown[0]]} of the training" if unknown[0] in own else ""
        known = f"{params.model} takes no {unknown[0]!r} here{hint}; valid: {', '.join(valid)}"
        raise invalid_model_params(params, known)
    values = {argument: getattr(params, name) for argument, name in own.items()}
    return estimator.set_params(**{**model.fixed, **values, **params.model_params})


def gives_probabilities(estimator: BaseEstimator) -> bool:
    """Return whether an estimator has probabilities, or nothing from which to compute them."""
    return hasattr(estimator, "predict_proba") or not hasattr(estimator, "decision_function")


def _calibrate(estimator: BaseEstimator, method: str, folds: list[tuple[Rows, Rows]]) -> BaseEstimator:
    """Calibrate the probabilities of a classifier on folds of its training rows; without folds, do not."""
    if method == AUTO:
        method = "none" if gives_probabilities(estimator) else "sigmoid"
    if method == "none" or not folds:
        return estimator
    return CalibratedClassifierCV(estimator, method=method, ensemble=False, cv=folds)
