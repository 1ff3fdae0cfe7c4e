"""Read the `MLmodel` file of a model: its flavors, its columns and its class names."""

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
