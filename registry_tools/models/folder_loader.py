"""Load a model from a folder of verified files.

This module imports MLflow only for formats that run code, which MLflow itself reads.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Protocol

from registry_tools.errors import VerificationError, first_line
from registry_tools.models import formats
from registry_tools.models.formats import ModelDescription
from registry_tools.models.frameworks.advice import advice
from registry_tools.models.frameworks.flavors import load_native
from registry_tools.models.frameworks.native_format import FormatRunsCode
from registry_tools.models.loaded_model import LoadedModel, ModelInfo
from registry_tools.models.trust_policy import TrustPolicy

# The errors on a damaged file that MLflow does not translate into its own.
_MLFLOW_ERRORS = (
    *(OSError, ValueError, TypeError, AttributeError, LookupError),
    *(RuntimeError, ImportError, EOFError, pickle.UnpicklingError),
)


class Registered(Protocol):
    """The identity of a registered version."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def run_id(self) -> str | None: ...
    @property
    def digest(self) -> str | None: ...


def load_folder(
    folder: Path, trust_policy: TrustPolicy, version: Registered | None = None, stage: str | None = None
) -> LoadedModel:
    """Load a model from a folder of verified files, and deserialize trusted types only.

    Raises
    ------
    VerificationError
        If the model contains untrusted types, or would run code although `trust_policy` does not allow it.
    """
    description = formats.describe(folder)
    info = ModelInfo(
        name=version.name if version else folder.name,
        version=version.version if version else 0,
        stage=stage,
        run_id=version.run_id if version else None,
        digest=version.digest if version else None,
        target_names=description.target_names,
        signature=description.signature,
        tensor=description.tensor,
        inputs=description.signature_inputs,
        outputs=description.signature_outputs,
    )
    return _load(info, folder, description, trust_policy)


def _load(
    info: ModelInfo, folder: Path, description: ModelDescription, trust_policy: TrustPolicy
) -> LoadedModel:
    try:
        return LoadedModel(info, load_native(folder, description, trust_policy))
    except FormatRunsCode as reason:
        if trust_policy.allow_code:
            return _load_with_code(info, folder, description)
        raise VerificationError(
            f"loading this model would run code from it: {reason}; {advice(description.flavors)}"
        ) from reason


def _load_with_code(info: ModelInfo, folder: Path, description: ModelDescription) -> LoadedModel:
    if "sklearn" not in description.flavors:
        return _load_with_mlflow(info, folder)
    import mlflow.sklearn
    from mlflow.exceptions import MlflowException

    try:
        return LoadedModel(info, mlflow.sklearn.load_model(str(folder)))
    except (MlflowException, *_MLFLOW_ERRORS) as error:
        raise VerificationError(f"MLflow cannot load it: {first_line(error)}") from error


def _load_with_mlflow(info: ModelInfo, folder: Path) -> LoadedModel:
    import mlflow.pyfunc
    from mlflow.exceptions import MlflowException

    try:
        # MLflow parses the MLmodel of this folder again, the same file that `describe` checked.
        model = mlflow.pyfunc.load_model(str(folder))
    except (MlflowException, *_MLFLOW_ERRORS) as error:
        raise VerificationError(f"MLflow cannot load it: {first_line(error)}") from error
    return LoadedModel(info, model, (ValueError, TypeError, MlflowException))
