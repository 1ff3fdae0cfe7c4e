"""What the loaders of native formats share: the check of a flavor, and late imports of packages."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry_tools.errors import VerificationError, first_line
from registry_tools.models.formats import ModelDescription
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.terminal import printable

# How to install the packages that models need. A model can name any package: no message advises to
# install one that is not in this list.
_INSTALL = {
    **dict.fromkeys(("xgboost", "lightgbm"), "pip install 'registry-pipeline[boosting]'"),
    **dict.fromkeys(("onnx", "onnxruntime"), "pip install onnx onnxruntime"),
    **{name: f"pip install {name}" for name in ("catboost", "keras", "torch", "tensorflow", "jax")},
}


class FormatRunsCode(Exception):
    """Loading a model would run code from it; the text is the reason."""


@dataclass(frozen=True)
class ModelFile:
    """The file of a model, with what its loader may know about the model."""

    path: Path
    folder: Path  # of the model; contains the file
    flavor: Mapping[str, Any]  # written by the author of the model, so it is not trusted
    description: ModelDescription
    trust_policy: TrustPolicy

    @property
    def class_names(self) -> tuple[str, ...]:
        """The class names of the version in code order; empty if it has none."""
        return self.description.target_names or ()


def checked_file(
    name: str,
    flavor: Mapping[str, Any],
    generic: Mapping[str, Any],
    endings: tuple[str, ...],
    classes: Collection[str] = (),
) -> str:
    """Return the file that a flavor names, after checking its name and the class of the model.

    Parameters
    ----------
    name
        The name of the flavor.
    flavor, generic
        The flavor, and the flavor `python_function` beside it.
    endings
        The possible endings of the file name.
    classes
        The possible values of `model_class`; empty if the flavor has none.

    Raises
    ------
    FormatRunsCode
        If the file or the class is another one.
    """
    files = {str(place["data"]) for place in (flavor, generic) if "data" in place}
    if len(files) != 1 or "/" in min(files) or not min(files).endswith(endings):
        raise FormatRunsCode(f"{name} saved as {', '.join(sorted(files)) or 'nothing that it names'}")
    if classes and flavor.get("model_class", min(classes)) not in classes:
        raise FormatRunsCode(f"{name} with the class {flavor['model_class']}")
    return min(files)


def check_beginning(path: Path, beginnings: tuple[bytes, ...], kind: str) -> None:
    """Refuse a file that does not begin as files of its format do, before a library parses it.

    Raises
    ------
    VerificationError
        If it begins otherwise.
    """
    with path.open("rb") as file:
        found = file.read(max(map(len, beginnings)))
    if not found.startswith(beginnings):
        raise VerificationError(f"{path.name} is not readable: it is not {kind}")


@contextlib.contextmanager
def as_value_errors(*errors: type[Exception]) -> Iterator[None]:
    """Raise the errors of a library as ValueError, as scikit-learn does for a damaged file or unfit rows."""
    try:
        yield
    except errors as error:
        raise ValueError(first_line(error)) from error


def import_package(module: str) -> Any:
    """Import the package that a model needs.

    Raises
    ------
    VerificationError
        If it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise missing_package(error) from error


def missing_package(error: ModuleNotFoundError) -> VerificationError:
    """Return the error for a package that a model needs and that is not installed."""
    package = printable(str(error.name)).partition(".")[0][:200]
    fix = _INSTALL.get(package, "install it")
    return VerificationError(f"the model needs {package}, which is not installed: {fix}")
