"""Choose the loader of a model by its flavor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from registry_tools.errors import VerificationError, first_line
from registry_tools.models.formats import ModelDescription, file_in
from registry_tools.models.frameworks import (
    catboost_loader,
    keras_loader,
    lightgbm_loader,
    onnx_loader,
    pytorch_loader,
    skops_loader,
    xgboost_loader,
)
from registry_tools.models.frameworks.native_format import FormatRunsCode, ModelFile
from registry_tools.models.trust_policy import TrustPolicy

# Each module checks its flavor with `file_of`, and builds the model with `load`.
_LOADERS: Mapping[str, ModuleType] = {
    "sklearn": skops_loader,
    "xgboost": xgboost_loader,
    "lightgbm": lightgbm_loader,
    "catboost": catboost_loader,
    "onnx": onnx_loader,
    "keras": keras_loader,
    "pytorch": pytorch_loader,
}
# The errors of the libraries on a damaged file, which they do not document. XGBoostError and LightGBMError
# are ValueErrors or plain Exceptions by version, CatBoostError is an Exception.
_LIBRARY_ERRORS = (
    *(OSError, ValueError, TypeError, AttributeError, LookupError),
    *(RuntimeError, ImportError, MemoryError, EOFError),
)


def format_of(flavors: Mapping[str, Mapping[str, Any]], folder: Path) -> tuple[str, str]:
    """Return the flavor to load a model by, and the file of the model.

    Parameters
    ----------
    flavors
        The `flavors` of an `MLmodel` file. The model's author wrote them, so only known formats are
        accepted.
    folder
        The folder of the model.

    Returns
    -------
    flavor
        Loading it runs no code from the model.
    file
        The path of the file, relative to the model's folder.

    Raises
    ------
    FormatRunsCode
        If loading the model would run code from it; the message gives the reason.
    """
    generic = flavors.get("python_function", {})
    others = sorted(set(flavors) - {"python_function"})
    if any(flavor.get("code") for flavor in flavors.values()):
        raise FormatRunsCode("it brings Python files (code_paths)")
    module = str(generic.get("loader_module"))
    if others == ["sklearn"]:
        return "sklearn", skops_loader.file_of(flavors["sklearn"], generic, folder)
    if len(others) != 1 or others[0] not in _LOADERS or module != f"mlflow.{others[0]}":
        raise FormatRunsCode(f"flavor {', '.join(others) or module.removeprefix('mlflow.')}")
    name = others[0]
    if generic.get("predict_fn", "predict") != "predict":
        raise FormatRunsCode(f"{name} with the prediction function {generic['predict_fn']}")
    return name, _LOADERS[name].file_of(flavors[name], generic, folder)


def load_native(folder: Path, description: ModelDescription, trust_policy: TrustPolicy) -> Any:
    """Build the model in a folder of verified files, without running code from it.

    Returns
    -------
    object
        Has `predict`, and `predict_proba` and `classes_` if the model has probabilities.

    Raises
    ------
    FormatRunsCode
        If that is impossible for its format.
    VerificationError
        If the file is damaged, a package is missing, or the model contains what it must not.
    """
    name, file = format_of(description.flavors, folder)
    path = file_in(folder, file)
    model = ModelFile(path, folder, description.flavors[name], description, trust_policy)
    try:
        return _LOADERS[name].load(model)
    except _LIBRARY_ERRORS as error:
        raise VerificationError(f"{path.name} is not readable: {first_line(error)}") from error
