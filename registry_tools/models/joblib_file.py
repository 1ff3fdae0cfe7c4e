"""Joblib files: write the estimator of a version to one, and read a fitted estimator from one."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.base import BaseEstimator, is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from registry_tools.errors import (
    InputError,
    UnsupportedOperation,
    VerificationError,
    error_summary,
    first_line,
)
from registry_tools.files.output_file import output_file
from registry_tools.models.loaded_model import LoadedModel
from registry_tools.models.trust_policy import TrustPolicy

_log = logging.getLogger(__name__)


def export_joblib(model: LoadedModel, path: str | Path) -> int:
    """Write the scikit-learn estimator to a joblib file atomically; return its size in bytes.

    Raises
    ------
    UnsupportedOperation
        If the version holds no scikit-learn estimator.
    InputError
        If the file cannot be written.
    """
    estimator = getattr(model.estimator, "fitted", model.estimator)  # of another library
    if not hasattr(estimator, "get_params"):
        raise UnsupportedOperation(
            f"{model.info.name} version {model.info.version} is a {type(model.estimator).__name__}: joblib "
            "export supports scikit-learn estimators only"
        )
    path = Path(path)
    with output_file(path) as part:
        joblib.dump(estimator, part)
    return path.stat().st_size


def read_estimator(path: Path, trust_policy: TrustPolicy) -> Any:
    """Return the fitted scikit-learn classifier or regressor in a joblib file.

    Raises
    ------
    VerificationError
        If the policy does not allow code: reading the file runs the code in it.
    InputError
        If there is no such file, or joblib cannot read it.
    UnsupportedOperation
        If the file contains anything else.
    """
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise InputError(f"{path}: the file {what} (looked in {path.absolute().parent})")
    if not trust_policy.allow_code:
        raise VerificationError(
            f"{path}: reading a joblib file runs the code in it; if you trust its maker, give --allow-code "
            "(allow_code=True)"
        )
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            estimator = joblib.load(path)
    except Exception as error:  # the code in the file may raise anything
        raise InputError(
            f"{path}: joblib cannot read it: {error_summary(error, 200)}; write it with "
            "joblib.dump(model, path)"
        ) from error
    for warning in caught:  # such as another version of scikit-learn
        _log.warning("%s: %s", path, first_line(warning.message))
    if not isinstance(estimator, BaseEstimator) or not _is_fitted_model(estimator):
        raise UnsupportedOperation(
            f"{path} contains a {type(estimator).__name__}, not a fitted scikit-learn classifier or "
            "regressor: write the fitted model with joblib.dump(model, path)"
        )
    return estimator


def _is_fitted_model(estimator: BaseEstimator) -> bool:
    if is_classifier(estimator):
        return hasattr(estimator, "classes_")
    if not is_regressor(estimator):
        return False
    try:
        check_is_fitted(estimator)
    except NotFittedError:
        return False
    return True


def name_columns(estimator: Any, names: Sequence[str]) -> None:
    """Give an estimator that was fitted on an array the names of its columns, in order.

    Without them, scikit-learn warns whenever the estimator predicts rows with column names.
    """
    first = estimator
    while isinstance(first, Pipeline):
        first = first.steps[0][1]
    if hasattr(first, "n_features_in_") and not hasattr(first, "feature_names_in_"):
        first.feature_names_in_ = np.array(names, dtype=object)
