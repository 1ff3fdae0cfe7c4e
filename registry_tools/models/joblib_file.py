"""Joblib files, and the skops format: a version to a joblib file, and estimators to models of MLflow."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any, TypeVar

import joblib
import numpy as np
import pandas as pd
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
# The packages that a model needs. Without this list, MLflow infers them in a subprocess, for seconds.
_REQUIREMENTS = ("mlflow", "scikit-learn", "skops", "numpy", "pandas", "scipy")
_EXAMPLE_ROWS = 5

Written = TypeVar("Written")


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


def read_estimator(path: Path, policy: TrustPolicy) -> Any:
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
    if not policy.allow_code:
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


def save_skops(
    estimator: Any, folder: Path, rows: pd.DataFrame, target_names: Sequence[str], policy: TrustPolicy
) -> None:
    """Write an estimator to a new folder as an MLflow model in the skops format.

    Parameters
    ----------
    estimator
        A fitted classifier or regressor.
    folder
        The folder to make.
    rows
        Rows that it takes, shape (rows, columns): they give the signature and the input example.
    target_names
        The class names in code order; empty if it predicts names or numbers.
    policy
        The types that it may contain.

    Raises
    ------
    VerificationError
        If it contains other types.
    InputError
        If it cannot predict the rows.
    """
    import mlflow.sklearn

    if untrusted := untrusted_types(estimator, policy.trusted):
        raise VerificationError(
            f"the model contains types that are not trusted: {', '.join(untrusted[:5])}; if you know them, "
            "give --trust TYPE (trust=[…]) or name them in REGISTRY_TOOLS_TRUST"
        )
    try:
        predicted = estimator.predict(rows)
    except (ValueError, TypeError) as error:
        raise InputError(f"the model cannot predict these rows: {first_line(error)}") from error
    write = partial(mlflow.sklearn.save_model, path=str(folder))
    write_skops(write, estimator, rows.head(_EXAMPLE_ROWS), rows, predicted, target_names, policy.trusted)


def untrusted_types(estimator: Any, trusted: Sequence[str]) -> list[str]:
    """Return the types of an estimator that neither `trusted` lists nor skops trusts by default, sorted."""
    import skops.io

    found = set(skops.io.get_untrusted_types(data=skops.io.dumps(estimator)))
    return sorted(found - set(trusted))


def write_skops(
    write: Callable[..., Written],
    estimator: Any,
    example: pd.DataFrame,
    features: pd.DataFrame,
    predicted: Any,
    target_names: Sequence[str],
    trusted: Sequence[str],
    packages: Sequence[str] = (),
) -> Written:
    """Write an estimator in the skops format with a function of MLflow, and return its result.

    Parameters
    ----------
    write
        `save_model` or `log_model` of `mlflow.sklearn`, with the place to write to.
    estimator
        A fitted scikit-learn estimator.
    example
        A few rows, shape (rows, columns), which are stored as the input example.
    features, predicted
        Rows, shape (rows, columns), and predictions; MLflow infers the signature from them.
    target_names
        The class names in code order, which are stored as metadata of the model; empty if it predicts
        names or numbers.
    trusted
        The types that it may contain, in addition to the types that skops trusts by default.
    packages
        Packages that it needs besides the usual ones.
    """
    from mlflow.models import infer_signature

    requirements = (*_REQUIREMENTS, *packages)
    with warnings.catch_warnings():
        # An integer column is signed as such: coercion refuses a missing value by name.
        warnings.filterwarnings("ignore", message=".*integer column", category=UserWarning)
        return write(
            estimator,
            signature=infer_signature(features, predicted),
            input_example=example,
            pip_requirements=[f"{name}=={installed_version(name)}" for name in requirements],
            serialization_format="skops",
            skops_trusted_types=list(trusted),
            metadata={"target_names": list(target_names)} if target_names else None,
        )
