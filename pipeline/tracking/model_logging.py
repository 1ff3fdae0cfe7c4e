"""Log the trained model with its run, in the skops format."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from typing import Any

import mlflow.sklearn
import pandas as pd
import skops.io
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature, infer_signature
from mlflow.models.model import ModelInfo
from skops.io.exceptions import UntrustedTypesFoundException

from pipeline.errors import UntrustedType
from registry_tools.models import artifacts
from registry_tools.models.manifest import manifest_of

# What a model needs to predict. Stated here, MLflow need not infer it in a subprocess.
_MODEL_REQUIREMENTS = ("mlflow", "scikit-learn", "skops", "numpy", "pandas", "scipy")


@dataclass(frozen=True)
class StoredModel:
    """A model that MLflow has stored with a run, not yet registered."""

    uri: str
    model_id: str
    manifest: Mapping[str, str]


def log_model(
    estimator: Any,
    *,
    example: pd.DataFrame,
    features: pd.DataFrame,
    predicted: Any,
    target_names: Sequence[str],
    trusted: Sequence[str],
) -> StoredModel:
    """Store the model with the active run, and take the manifest of what the store then serves.

    Parameters
    ----------
    estimator
        A fitted scikit-learn estimator.
    example
        A few rows, stored as the input example.
    features, predicted
        Rows and their predictions, from which the signature is inferred.
    target_names
        The class names in code order, stored as the model's metadata.
    trusted
        The types that it may hold, beside those that skops trusts itself.

    Raises
    ------
    UntrustedType
        If it holds others.
    """
    with warnings.catch_warnings():
        # Integer columns are signed as such: a later missing value is for the pipeline's imputer.
        warnings.filterwarnings("ignore", message=".*integer column", category=UserWarning)
        info = _log_skops_model(
            estimator, example, infer_signature(features, predicted), target_names, trusted
        )
    client = MlflowClient()
    location = client.get_logged_model(info.model_id).artifact_location
    with artifacts.download(client, location) as folder:
        manifest = manifest_of(folder)
    return StoredModel(f"models:/{info.model_id}", info.model_id, manifest)


def _log_skops_model(
    estimator: Any,
    example: pd.DataFrame,
    signature: ModelSignature,
    target_names: Sequence[str],
    trusted: Sequence[str],
) -> ModelInfo:
    try:
        return mlflow.sklearn.log_model(
            estimator,
            name="model",
            signature=signature,
            input_example=example,
            pip_requirements=[f"{name}=={installed_version(name)}" for name in _MODEL_REQUIREMENTS],
            serialization_format="skops",
            skops_trusted_types=list(trusted),
            metadata={"target_names": list(target_names)},
        )
    except MlflowException as error:
        # MLflow's words name its own argument, and it raises them without a cause.
        if not isinstance(error.__context__, UntrustedTypesFoundException):
            raise
        held = set(skops.io.get_untrusted_types(data=skops.io.dumps(estimator)))
        raise UntrustedType(held - set(trusted)) from error
