"""The identity of a study: one sweep uses the trials of another only if all of it is equal."""

from __future__ import annotations

import hashlib
import importlib
import json
import platform
from collections.abc import Sequence
from pathlib import Path

import pipeline
from pipeline.estimators import ESTIMATORS
from pipeline.params.definitions import SweepParams

# These options change neither the parameters nor the result of a trial.
_EXECUTION = {"n_jobs", "engine"}
_PACKAGES = ("numpy", "scipy", "pandas", "sklearn")
_METRIC = "cv_accuracy_mean"


def study_key(params: SweepParams, models: Sequence[str], data_digest: str) -> str:
    """Return the identity of a study as 32 hexadecimal digits.

    Parameters
    ----------
    params
        Of the sweep.
    models
        The estimators that it searches.
    data_digest
        SHA-256 of its table.
    """
    specs = {name: ESTIMATORS[name] for name in models}
    packages = sorted({*_PACKAGES, *(spec.factory.partition(".")[0] for spec in specs.values())})
    identity = {
        "params": {key: text for key, text in params.as_text().items() if key not in _EXECUTION},
        "models": {name: repr(spec) for name, spec in specs.items()},
        "data": data_digest,
        "metric": _METRIC,
        "code": _code_digest(),
        "packages": {name: getattr(importlib.import_module(name), "__version__", None) for name in packages},
        "python": platform.python_version(),
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]


def _code_digest() -> str:
    folder = Path(pipeline.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder)} {path.stat().st_size}\n".encode() + path.read_bytes())
    return digest.hexdigest()
