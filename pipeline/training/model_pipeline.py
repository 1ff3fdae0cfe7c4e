"""Build the scikit-learn pipeline of a training: column preparation, then the estimator."""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Collection, Sequence
from typing import Any

import pandas as pd
import skops.io
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.utils._param_validation import InvalidParameterError

from pipeline.data.dataset import Dataset
from pipeline.errors import InvalidParameter, UntrustedType
from pipeline.estimators import ESTIMATORS
from pipeline.params.definitions import TrainParams
from pipeline.params.fields import as_text

_log = logging.getLogger(__name__)

# A text column with more values than this keeps the commonest and pools the rest: one-hot columns
# are dense, and a column of identifiers must not fill the memory.
MAX_CATEGORIES = 100
_TRIED_ROWS = 1000  # of each class, at most


def build_pipeline(params: TrainParams, features: pd.DataFrame, class_size: int) -> Pipeline:
    """Return the untrained pipeline for a table.

    Parameters
    ----------
    params
        `model`, `model_params`, `max_iter` and `random_state` are read.
    features
        All rows, shape (rows, columns): their types and missing values decide the preparation.
    class_size
        Training rows of the smallest class: the calibration of `svc` needs two in every fold.

    Raises
    ------
    InvalidParameter
        If `model_params` has a key that the estimator does not know.
    """
    steps: list[tuple[str, Any]] = []
    preparation = _column_transformer(features)
    if preparation is not None:
        steps.append(("prepare", preparation))
    steps.append(("model", _calibrate(_create_estimator(params), class_size)))
    return Pipeline(steps)


def default_arguments(model: str, names: Collection[str]) -> dict[str, Any]:
    """Return the values that arguments of an estimator have if nobody sets them."""
    defaults = _import_estimator(ESTIMATORS[model].factory).get_params()
    return {name: defaults[name] for name in names}


def fold_count(class_size: int) -> int:
    """Return how many folds a cross-validation has: five, or fewer where a class is small.

    Below two there is none.
    """
    return min(5, class_size)


def cross_validate(params: TrainParams, features: pd.DataFrame, training: Dataset) -> dict[str, float]:
    """Return mean and standard deviation of the accuracy over folds of the training rows.

    Parameters
    ----------
    params, features
        As for `build`.
    training
        The rows, two of each class at least. The folds are the same for the same `random_state`.
    """
    class_size = int(training.labels.value_counts().min())
    scores = cross_val_score(
        build_pipeline(params, features, class_size),
        training.features,
        training.labels,
        cv=StratifiedKFold(fold_count(class_size), shuffle=True, random_state=params.random_state),
        error_score="raise",
    )
    return {"cv_accuracy_mean": float(scores.mean()), "cv_accuracy_std": float(scores.std())}


def check_model_params(
    params: TrainParams, features: pd.DataFrame, labels: pd.Series, trusted: Sequence[str]
) -> None:
    """Try `model_params` before any run is opened, so that a bad value costs none.

    Parameters
    ----------
    params
        As for `build`.
    features, labels
        The training rows; a large table is tried on a part.
    trusted
        The types that a model may hold, beside those that skops trusts itself.

    Raises
    ------
    InvalidParameter
        If the estimator refuses `model_params`, cannot be saved with them, or `knn` wants more
        neighbours than there are.
    """
    estimator = _create_estimator(params)
    try:
        # scikit-learn's own check of each argument, which fit begins with; others have none.
        if hasattr(estimator, "_parameter_constraints"):
            estimator._validate_params()
    except InvalidParameterError as error:
        raise _invalid_model_params(params, error) from error
    if _has_class_weight(estimator) and not _has_probabilities(estimator):
        _log.warning(
            "class_weight has next to no effect: %s gives no probabilities, and calibrating them "
            "weighs each row alike",
            params.model,
        )
    if params.model == "knn":
        _check_neighbours(params, estimator.get_params()["n_neighbors"], labels)
    if not params.model_params:
        return
    part = labels.groupby(labels).head(_TRIED_ROWS).index
    trial = build_pipeline(params, features, class_size=0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trial.fit(features.loc[part], labels.loc[part])
    except (ValueError, TypeError, OverflowError) as error:
        if len(part) == len(labels) or isinstance(error, InvalidParameterError):
            raise _invalid_model_params(params, error) from error
        return  # what a part of the rows cannot do, all of them may
    found = set(skops.io.get_untrusted_types(data=skops.io.dumps(trial)))
    if untrusted := found - set(trusted):
        raise _invalid_model_params(params, UntrustedType(untrusted))


def _invalid_model_params(params: TrainParams, reason: object) -> InvalidParameter:
    text = " ".join(str(reason).split())
    return InvalidParameter("model_params", as_text(params.model_params), text)


def _check_neighbours(params: TrainParams, neighbours: object, labels: pd.Series) -> None:
    parts = fold_count(int(labels.value_counts().min()))
    rows = len(labels) - (-(-len(labels) // parts) if parts > 1 else 0)
    if not isinstance(neighbours, int) or isinstance(neighbours, bool):
        raise _invalid_model_params(params, f"n_neighbors must be a whole number, not {neighbours}")
    if neighbours > rows:
        raise _invalid_model_params(
            params,
            f"n_neighbors is {neighbours}, but a fold trains on {rows} rows only: take fewer "
            "neighbours or more rows",
        )


def _create_estimator(params: TrainParams) -> BaseEstimator:
    model = ESTIMATORS[params.model]
    own = {key: getattr(params, key.rpartition("__")[2]) for key in model.takes}
    estimator = _import_estimator(model.factory)
    # What has a parameter of its own is not taken twice; progress does not belong on stdout.
    valid = sorted(key for key in _settable_arguments(estimator) - set(own) if not key.endswith("verbose"))
    unknown = sorted(set(params.model_params) - set(valid))
    if unknown:
        hint = f" ({unknown[0]} is a parameter of its own)" if unknown[0] in own else ""
        raise _invalid_model_params(
            params, f"{params.model} takes no {unknown[0]!r} here{hint}; valid: {', '.join(valid)}"
        )
    return estimator.set_params(**own, **params.model_params)


def _import_estimator(place: str) -> BaseEstimator:
    """Return what the named class or function makes; imports only what is used."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)()


def _settable_arguments(estimator: BaseEstimator) -> set[str]:
    """Return what can be set: of a Pipeline the arguments of its steps, not the steps."""
    names = set(estimator.get_params())
    return {name for name in names if "__" in name} if isinstance(estimator, Pipeline) else names


def _has_class_weight(estimator: BaseEstimator) -> bool:
    given = estimator.get_params().items()
    return any(name.endswith("class_weight") and value is not None for name, value in given)


def _has_probabilities(estimator: BaseEstimator) -> bool:
    return hasattr(estimator, "predict_proba") or not hasattr(estimator, "decision_function")


def _calibrate(estimator: BaseEstimator, class_size: int) -> BaseEstimator:
    """Give an estimator without probabilities those of a sigmoid over its decision values.

    One that has neither is left alone. Within a fold of the cross-validation a class has four
    fifths of its rows.
    """
    inner = fold_count(class_size * 4 // 5)
    if _has_probabilities(estimator) or inner < 2:
        return estimator
    from sklearn.calibration import CalibratedClassifierCV

    return CalibratedClassifierCV(estimator, ensemble=False, cv=inner)


def _column_transformer(features: pd.DataFrame) -> ColumnTransformer | None:
    """Return what turns the raw columns into numbers; None where they are numbers already."""
    booleans = [c for c in features if _is_boolean(features[c])]
    numbers = [c for c in features if pd.api.types.is_numeric_dtype(features[c]) and c not in booleans]
    texts = [c for c in features if c not in booleans and c not in numbers]
    if not booleans and not texts and not features.isna().to_numpy().any():
        return None
    parts: list[tuple[str, Any, list[Any]]] = []
    if numbers:
        parts.append(("numbers", SimpleImputer(strategy="median", keep_empty_features=True), numbers))
    if texts:
        filled = SimpleImputer(strategy="constant", fill_value="missing", keep_empty_features=True)
        parts.append(("texts", Pipeline([("fill", filled), ("one_hot", _one_hot())]), texts))
    if booleans:
        parts.append(("booleans", _one_hot(), booleans))
    return ColumnTransformer(parts)


def _is_boolean(column: pd.Series) -> bool:
    """Tell booleans, which are objects where values are missing, from text."""
    return pd.api.types.is_bool_dtype(column) or bool(
        column.dtype == object and column.map(type).eq(bool).any()
    )


def _one_hot() -> OneHotEncoder:
    # A value that training never saw must be predictable later.
    return OneHotEncoder(
        handle_unknown="infrequent_if_exist", max_categories=MAX_CATEGORIES, sparse_output=False
    )
