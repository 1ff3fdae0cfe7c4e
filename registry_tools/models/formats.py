"""Read the `MLmodel` file of a model: its columns, its class names, and the format to load it by."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from registry_tools.data.schema import Column, TensorSchema, UnsupportedTensor, columns_of, tensor_of
from registry_tools.errors import VerificationError, first_line
from registry_tools.models.inspection import metadata
from registry_tools.models.manifest import WRITTEN_ON_LOAD

_TARGET_NAMES = "target_names"
_MLMODEL_ERRORS = (
    *(OSError, ValueError, TypeError, AttributeError, LookupError),
    *(yaml.YAMLError, RecursionError),
)

# Flavors with a file format that holds numbers and no code: the classes that MLflow reads from it, and
# the file endings. MLflow unpickles any other class of these flavors, whatever the file name.
_NATIVE_FORMATS = {
    "xgboost": (
        {
            "xgboost.core.Booster",
            "xgboost.sklearn.XGBClassifier",
            "xgboost.sklearn.XGBRanker",
            "xgboost.sklearn.XGBRegressor",
            "xgboost.sklearn.XGBRFClassifier",
            "xgboost.sklearn.XGBRFRegressor",
        },
        (".xgb", ".json", ".ubj"),
    ),
    "lightgbm": ({"lightgbm.basic.Booster"}, (".lgb", ".txt")),
    "onnx": (set(), (".onnx",)),
}
# The allowed providers of ONNX Runtime, which compute on this machine. They may have no options: an option
# can name a library to load or a file to write. AzureExecutionProvider would send the rows elsewhere.
_ONNX_PROVIDERS = tuple(
    f"{name}ExecutionProvider"
    for name in ("CPU", "CUDA", "CoreML", "Dml", "Dnnl", "MIGraphX", "OpenVINO", "ROCM", "Tensorrt")
)
_ONNX_SESSION_OPTIONS = {
    *("execution_mode", "graph_optimization_level", "inter_op_num_threads", "intra_op_num_threads")
}


@dataclass(frozen=True)
class ModelDescription:
    """The content of an `MLmodel` file. The model's author wrote it, so it is not trusted."""

    flavors: Mapping[str, Mapping[str, Any]]
    signature: tuple[Column, ...] | None  # None if columns lack names or types
    tensor: TensorSchema | UnsupportedTensor | None  # for a model without named columns
    target_names: tuple[str, ...] | None
    signature_inputs: tuple[Mapping[str, Any], ...] = ()  # in MLflow's own form
    signature_outputs: tuple[Mapping[str, Any], ...] = ()

    @property
    def inputs(self) -> tuple[Column, ...] | TensorSchema | UnsupportedTensor | None:
        """The columns or the tensor of the signature; None if it has neither."""
        return self.signature or self.tensor


def describe(folder: Path) -> ModelDescription:
    """Read the `MLmodel` of a model folder.

    Raises
    ------
    VerificationError
        If the file is missing or not a valid `MLmodel`.
    """
    try:
        content = metadata.read_yaml(folder / "MLmodel")
        signature = content.get("signature") or {}
        inputs, outputs = (json.loads(signature.get(key) or "null") for key in ("inputs", "outputs"))
        names = (content.get("metadata") or {}).get(_TARGET_NAMES)
        if names is not None and not isinstance(names, list):
            raise TypeError(f"{_TARGET_NAMES} is not a list")
        description = ModelDescription(
            flavors={name: dict(flavor) for name, flavor in content["flavors"].items()},
            signature=columns_of(inputs),
            tensor=tensor_of(inputs),
            target_names=tuple(str(name) for name in names) if names else None,
            signature_inputs=tuple(map(dict, inputs or ())),
            signature_outputs=tuple(map(dict, outputs or ())),
        )
    except _MLMODEL_ERRORS as error:
        reason = first_line(error)
        raise VerificationError(f"no readable MLmodel in the model's files: {reason}") from error
    _check_sizes(description)
    example = content.get("saved_input_example_info")
    if example is not None:  # MLflow reads the example when it loads a model
        file_in(folder, example.get("artifact_path") if isinstance(example, dict) else example)
    metadata.check_metadata_files(folder)
    return description


def _check_sizes(description: ModelDescription) -> None:
    columns = [column.name for column in description.signature or ()]
    metadata.check_names("columns", columns, metadata.MOST_COLUMNS)
    metadata.check_names("target_names", description.target_names or (), metadata.MOST_CLASSES)
    tensor, most = description.tensor, metadata.MOST_TENSOR_COLUMNS
    if isinstance(tensor, TensorSchema) and tensor.columns > most:
        raise VerificationError(f"MLmodel names a {tensor}, and at most {most:,} columns are supported")


def format_of(flavors: Mapping[str, Mapping[str, Any]]) -> tuple[str, str]:
    """Return the format to load a model by, and the file in that format.

    Parameters
    ----------
    flavors
        The `flavors` of an `MLmodel` file. The model's author wrote them, so only known formats are
        accepted.

    Returns
    -------
    format
        `skops`, `xgboost`, `lightgbm` or `onnx`. Loading them runs no code from the model.
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
    if others == ["sklearn"]:
        flavor = flavors["sklearn"]
        if flavor.get("serialization_format") == "skops":
            return "skops", str(flavor.get("pickled_model"))
        raise FormatRunsCode(f"scikit-learn saved as {flavor.get('serialization_format', 'pickle')}")
    loader = str(generic.get("loader_module"))
    if len(others) != 1 or others[0] not in _NATIVE_FORMATS or loader != f"mlflow.{others[0]}":
        raise FormatRunsCode(f"flavor {', '.join(others) or loader.removeprefix('mlflow.')}")
    name = others[0]
    classes, endings = _NATIVE_FORMATS[name]
    flavor = flavors[name]
    files = {str(place["data"]) for place in (flavor, generic) if "data" in place}
    if len(files) != 1 or "/" in min(files) or not min(files).endswith(endings):
        raise FormatRunsCode(f"{name} saved as {', '.join(sorted(files)) or 'nothing that it names'}")
    if classes and flavor.get("model_class", min(classes)) not in classes:
        raise FormatRunsCode(f"{name} with the class {flavor['model_class']}")
    if generic.get("predict_fn", "predict") != "predict":
        raise FormatRunsCode(f"{name} with the prediction function {generic['predict_fn']}")
    if name == "onnx":
        _check_onnx(flavor)
    return name, min(files)


def _check_onnx(flavor: Mapping[str, Any]) -> None:
    """Refuse settings of ONNX Runtime other than known providers and numbers of threads."""
    providers = flavor.get("providers") or []
    for provider in providers if isinstance(providers, list) else [providers]:
        if provider not in _ONNX_PROVIDERS:
            raise FormatRunsCode(
                f"onnx with the provider {str(provider)[:60]}; the allowed providers, without options, are "
                f"{', '.join(_ONNX_PROVIDERS)}"
            )
    options = flavor.get("onnx_session_options") or {}
    for option in options if isinstance(options, dict) else [options]:
        if str(option) not in _ONNX_SESSION_OPTIONS:
            raise FormatRunsCode(f"onnx with the session option {str(option)[:60]}")


class FormatRunsCode(Exception):
    """Loading a model would run code from it; the text is the reason."""


def file_in(folder: Path, name: Any) -> Path:
    """Return the path of a file that an `MLmodel` names.

    Raises
    ------
    VerificationError
        If the file is outside the folder, or is not one of the verified files.
    """
    try:
        path = (folder / name).resolve()
        relative = path.relative_to(folder.resolve()).as_posix()
        compared = path.is_file() and relative not in WRITTEN_ON_LOAD
    except (ValueError, TypeError, OSError):  # such as a NUL character, a number or a too long name
        compared = False
    if not compared:
        raise VerificationError(f"MLmodel names {str(name)[:100]!r}, which is not a file of the model")
    return path
