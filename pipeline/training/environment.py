"""The code and the packages that the result of a training depends on."""

from __future__ import annotations

import hashlib
import importlib
import json
import platform
from collections.abc import Sequence
from pathlib import Path

import pipeline
from pipeline.estimators import ESTIMATORS

_PACKAGES = ("numpy", "scipy", "pandas", "sklearn", "optuna")


def identity(models: Sequence[str], *inputs: object) -> str:
    """Return 32 hexadecimal digits that change with anything that a result depends on.

    Parameters
    ----------
    models
        Names of estimators. Their entries and the versions of their packages count.
    inputs
        JSON values. They count, as the code of the pipeline does.
    """
    specs = [ESTIMATORS[model] for model in models]
    packages = {*_PACKAGES, *(spec.factory.split(":")[0].split(".")[0] for spec in specs)}
    versions = {name: getattr(importlib.import_module(name), "__version__", "") for name in packages}
    parts = [inputs, versions, platform.python_version(), repr(specs), _code_digest()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _code_digest() -> str:
    folder = Path(pipeline.__file__).parent
    code = [(str(path.relative_to(folder)), path.read_text()) for path in sorted(folder.rglob("*.py"))]
    return hashlib.sha256(json.dumps(code).encode()).hexdigest()
