"""The code and the packages that the result of a training depends on."""

from __future__ import annotations

import hashlib
import importlib
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from pipeline.estimators import ESTIMATORS

_PACKAGES = ("numpy", "scipy", "pandas", "sklearn", "optuna")


def identity(models: Sequence[str], task: str, *inputs: object) -> str:
    """Return 32 hexadecimal digits that change with anything that a result depends on.

    Parameters
    ----------
    models
        Names of estimators. Their entries and the versions of their packages count.
    task
        The task that they do.
    inputs
        JSON values. They count, as the code of the pipeline does.
    """
    specs = [ESTIMATORS[model] for model in models]
    packages = {*_PACKAGES, *(spec.package_of(task) for spec in specs)}
    versions = {name: _version(importlib.import_module(name)) for name in packages}
    parts = [inputs, versions, platform.python_version(), repr(specs), _digest(Path(__file__).parents[1])]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _version(module: ModuleType) -> str:
    """Return the version of a package; the digest of a module of yours that has none."""
    version = getattr(module, "__version__", None)
    if version is None and module.__file__ is not None:
        file = Path(module.__file__)
        version = _digest(file.parent if hasattr(module, "__path__") else file)
    return str(version)


def _digest(path: Path) -> str:
    """Return the SHA-256 of a Python file, or of all Python files in a folder."""
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    code = [(str(file.relative_to(path)), file.read_text()) for file in files]
    return hashlib.sha256(json.dumps(code).encode()).hexdigest()
