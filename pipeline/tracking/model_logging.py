"""Log a trained model to MLflow in the skops format, and compute the manifest of its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import packages_distributions
from typing import Any

import mlflow.sklearn
import pandas as pd
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from skops.io.exceptions import UntrustedTypesFoundException

from pipeline.errors import UntrustedType
from registry_tools.models import artifacts
from registry_tools.models.manifest import manifest_of
from registry_tools.models.skops_file import untrusted_types, write_skops

_BOOSTING = ("xgboost", "lightgbm")


def log_model(
    estimator: Any,
    *,
    example: pd.DataFrame,
    features: pd.DataFrame,
    predicted: Any,
    target_names: Sequence[str],
    trusted: Sequence[str],
    package: str,
) -> tuple[str, Mapping[str, str]]:
    """Store a model with the active run; return its id and the manifest of its stored files.

    Parameters
    ----------
    estimator
        A fitted scikit-learn estimator.
    example
        A few rows, shape (rows, columns), which are stored as the input example.
    features, predicted
        Rows, shape (rows, columns), and predictions; MLflow infers the signature from them.
    target_names
        The class names in code order, which are stored as metadata of the model; empty for a regression.
    trusted
        The types that the model may contain, in addition to the types that skops trusts by default.
    package
        The package of the estimator, such as `sklearn` or `xgboost`.

    Raises
    ------
    UntrustedType
        If the model contains another type.
    """
    write = partial(mlflow.sklearn.log_model, name="model")
    # The package `xgboost` is also in the distribution `xgboost-cpu`.
    packages = packages_distributions()[package] if package in _BOOSTING else ()
    try:
        info = write_skops(write, estimator, example, features, predicted, target_names, trusted, packages)
    except MlflowException as error:
        # MLflow's message names an argument that our users do not have, and MLflow sets no cause.
        if not isinstance(error.__context__, UntrustedTypesFoundException):
            raise
        raise UntrustedType(untrusted_types(estimator, trusted)) from error
    with artifacts.download(MlflowClient(), info.model_uri) as folder:
        return info.model_id, manifest_of(folder)
