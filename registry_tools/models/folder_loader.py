"""Load a model from a folder of verified files.

This module imports MLflow only for the formats that MLflow itself reads.
"""

from __future__ import annotations

import pickle
import zlib
from pathlib import Path
from typing import Any, Protocol
from zipfile import BadZipFile

from registry_tools.errors import VerificationError, first_line
from registry_tools.models import formats
from registry_tools.models.formats import ModelDescription
from registry_tools.models.loaded_model import LoadedModel, ModelInfo
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.terminal import printable

# The errors of skops on a damaged file, which it does not document: its archive, JSON, arrays or types.
_SKOPS_ERRORS = (
    *(OSError, ValueError, TypeError, AttributeError, LookupError),
    *(RuntimeError, ImportError, MemoryError, BadZipFile, zlib.error),
)
_BOOSTING = ("xgboost", "lightgbm")  # the packages of the extra
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
    folder: Path, policy: TrustPolicy, version: Registered | None = None, stage: str | None = None
) -> LoadedModel:
    """Load a model from a folder of verified files, and deserialize trusted types only.

    Raises
    ------
    VerificationError
        If the model contains untrusted types, or would run code although `policy` does not allow it.
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
    return _load(info, folder, description, policy)


def _load(info: ModelInfo, folder: Path, description: ModelDescription, policy: TrustPolicy) -> LoadedModel:
    """Load a model by its checked format, and ignore other flavors in the `MLmodel`."""
    try:
        model_format, file_name = formats.format_of(description.flavors)
    except formats.FormatRunsCode as reason:
        if policy.allow_code:
            return _load_with_code(info, folder, description)
        raise VerificationError(
            f"loading this model would run code from it: {reason}; save the model with skops or, if you "
            "trust its author, use --allow-code (allow_code=True)"
        ) from reason
    file = formats.file_in(folder, file_name)
    if model_format == "skops":
        return LoadedModel(info, _load_skops(file, policy))
    return _load_with_mlflow(info, folder)


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


def _load_skops(path: Path, policy: TrustPolicy) -> Any:
    """Load a skops file by the operator's allow-list; MLflow would trust the list in the MLmodel."""
    import skops.io

    from registry_tools.models.inspection.archives import check_skops
    from registry_tools.models.inspection.estimators import inspect_model

    check_skops(path)
    try:
        untrusted = sorted(set(skops.io.get_untrusted_types(file=path)) - set(policy.trusted))
        if untrusted:
            names = ", ".join(printable(name)[:200] for name in untrusted[:5])
            raise VerificationError(
                f"the model contains untrusted types: {names}; if you trust them, use --trust TYPE "
                "(trust=[…]) or add them to REGISTRY_TOOLS_TRUST"
            )
        model = skops.io.load(path, trusted=list(policy.trusted))
    except ModuleNotFoundError as error:
        package = printable(str(error.name)).partition(".")[0][:200]
        fix = "install it"
        if package in _BOOSTING:
            fix = "pip install 'registry-pipeline[boosting]'"
        raise VerificationError(f"the model needs {package}, which is not installed: {fix}") from error
    except _SKOPS_ERRORS as error:
        raise VerificationError(f"{path.name} is not readable: {first_line(error)}") from error
    if not hasattr(model, "predict"):
        raise VerificationError(f"{path.name} holds a {type(model).__name__}, which cannot predict")
    inspect_model(model, policy)
    return model
