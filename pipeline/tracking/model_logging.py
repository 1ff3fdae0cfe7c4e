"""Log a trained model to MLflow in the skops format, and compute the manifest of its files."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import packages_distributions
from importlib.metadata import version as installed_version
from typing import Any

import mlflow.sklearn
import pandas as pd
import skops.io
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import infer_signature
from skops.io.exceptions import UntrustedTypesFoundException

from pipeline.errors import UntrustedType
from registry_tools.models import artifacts
from registry_tools.models.manifest import manifest_of

# The packages that a model needs. Without this list, MLflow infers them in a subprocess, for seconds.
_MODEL_REQUIREMENTS = ("mlflow", "scikit-learn", "skops", "numpy", "pandas", "scipy")
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
    requirements = list(_MODEL_REQUIREMENTS)
    if package in _BOOSTING:
        # The package `xgboost` is also in the distribution `xgboost-cpu`.
        requirements += packages_distributions()[package]
    try:
        with warnings.catch_warnings():
            # The signature keeps integer columns; the imputer of the pipeline fills later missing values.
            warnings.filterwarnings("ignore", message=".*integer column", category=UserWarning)
            info = mlflow.sklearn.log_model(
                estimator,
                name="model",
                signature=infer_signature(features, predicted),
                input_example=example,
                pip_requirements=[f"{name}=={installed_version(name)}" for name in requirements],
                serialization_format="skops",
                skops_trusted_types=list(trusted),
                metadata={"target_names": list(target_names)} if target_names else None,
            )
    except MlflowException as error:
        # MLflow's message names an argument that our users do not have, and MLflow sets no cause.
        if not isinstance(error.__context__, UntrustedTypesFoundException):
            raise
        held = set(skops.io.get_untrusted_types(data=skops.io.dumps(estimator)))
        raise UntrustedType(held - set(trusted)) from error
    client = MlflowClient()
    location = client.get_logged_model(info.model_id).artifact_location
    with artifacts.download(client, location) as folder:
        return info.model_id, manifest_of(folder)
