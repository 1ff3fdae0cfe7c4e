"""Check the parameters of a training against its table, before a run is opened."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence

from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import InvalidParameterError
from sklearn.utils.validation import has_fit_parameter

from pipeline.data.dataset import Dataset, quoted_values
from pipeline.data.folds import class_of_rows, divide_units, make_folds
from pipeline.errors import InvalidParameter, UntrustedType
from pipeline.estimators import ESTIMATORS
from pipeline.params.definitions import TrainParams
from pipeline.params.types import AUTO, as_text
from pipeline.training.fit_pipeline import fit_pipeline, sample_weights, threshold_metric
from pipeline.training.model_pipeline import create_estimator, gives_probabilities, invalid_model_params
from pipeline.training.scoring import metric_of
from registry_tools.models.skops_file import untrusted_types

_log = logging.getLogger(__name__)

_LIBRARY_ERRORS = ("XGBoostError", "LightGBMError")  # for an argument; both may be not installed
_TRIED_ROWS = 1000  # rows of each class that `check_model_params` fits at most


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
        threshold_metric(params, training)
    if params.model not in ESTIMATORS:
        return
    estimator = create_estimator(params)
    if sample_weights(params, training) is not None and not has_fit_parameter(estimator, "sample_weight"):
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


def check_model_params(params: TrainParams, training: Dataset, trusted: Sequence[str]) -> None:
    """Fit the pipeline once before a run is opened, so that invalid `model_params` leave no run.

    Early stopping measures its loss here as in the training, but nothing is calibrated.

    Parameters
    ----------
    params
        The resolved parameters of the training, which `check_fit` accepts.
    training
        The training rows. At most 1000 rows of each class are used; for a regression, 1000 rows.
    trusted
        The types that a model may contain, in addition to the types that skops trusts by default.

    Raises
    ------
    InvalidParameter
        If the estimator refuses `model_params`, if skops cannot save the model, or if `knn` needs more
        neighbours than a fold has rows.
    """
    estimator = create_estimator(params)
    arguments = estimator.get_params()
    is_weighted = any(name.endswith("class_weight") and arguments[name] is not None for name in arguments)
    if is_weighted and not gives_probabilities(estimator):
        _log.warning(
            "class_weight has almost no effect: %s has no probabilities, and the calibration that "
            "computes them weights all rows equally; use the parameter class_weight of the training",
            params.model,
        )
    if params.model == "knn":
        _check_neighbours(params, arguments["n_neighbors"], training)
    if not params.model_params:
        return
    labels = training.labels
    part = labels.groupby(class_of_rows(training)).head(_TRIED_ROWS).index.to_numpy()
    plain = params.replace(calibrate="none", threshold=None)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trial = fit_pipeline(plain, training.features, training.take(part))
    except Exception as error:
        is_of_library = type(error).__name__ in _LIBRARY_ERRORS
        if not isinstance(error, (ValueError, TypeError, OverflowError)) and not is_of_library:
            raise
        if len(part) == len(labels) or isinstance(error, InvalidParameterError) or is_of_library:
            raise invalid_model_params(params, error) from error
        return  # the error may be due to the sample: the fit on all rows may succeed
    if untrusted := untrusted_types(trial, trusted):
        raise invalid_model_params(params, UntrustedType(untrusted))


def _check_neighbours(params: TrainParams, neighbours: object, training: Dataset) -> None:
    rows = min((len(fitted) for fitted, _ in make_folds(training, params)), default=len(training.labels))
    if not isinstance(neighbours, int) or isinstance(neighbours, bool):
        raise invalid_model_params(params, f"n_neighbors must be a whole number, not {neighbours}")
    if neighbours > rows:
        few = f"n_neighbors is {neighbours}, but a fold has only {rows} training rows"
        raise invalid_model_params(params, f"{few}: use fewer neighbours or more rows")
