"""The identity of a study: a sweep uses the trials of another one only if all of it is equal."""

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
from pipeline.sweep.trials import METRIC

# These options change neither the parameters nor the metrics of a trial.
_EXECUTION = {"n_trials", "n_jobs", "engine", "timeout", "trial_timeout"}
_PACKAGES = ("numpy", "scipy", "pandas", "sklearn", "optuna")


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
    specs = [ESTIMATORS[model] for model in models]
    packages = {*_PACKAGES, *(spec.factory.split(":")[0].split(".")[0] for spec in specs)}
    versions = [
        (name, getattr(importlib.import_module(name), "__version__", "")) for name in sorted(packages)
    ]
    given = {key: text for key, text in params.as_text().items() if key not in _EXECUTION}
    parts = [given, repr(specs), data_digest, METRIC, _code_digest(), versions, platform.python_version()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _code_digest() -> str:
    folder = Path(pipeline.__file__).parent
    code = [(str(path.relative_to(folder)), path.read_text()) for path in sorted(folder.rglob("*.py"))]
    return hashlib.sha256(json.dumps(code).encode()).hexdigest()
