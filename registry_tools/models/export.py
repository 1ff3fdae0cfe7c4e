"""Export a registered estimator to a joblib file, for environments without MLflow."""

from __future__ import annotations

from pathlib import Path

import joblib

from registry_tools.data.output_file import output_file
from registry_tools.errors import UnsupportedOperation
from registry_tools.models.loaded_model import LoadedModel


def export_joblib(model: LoadedModel, path: str | Path) -> int:
    """Write the scikit-learn estimator to a joblib file atomically; return its size in bytes.

    Raises
    ------
    UnsupportedOperation
        If the version holds no scikit-learn estimator.
    InputError
        If the file cannot be written.
    """
    if not hasattr(model.estimator, "get_params"):
        raise UnsupportedOperation(
            f"{model.info.name} version {model.info.version} is a {type(model.estimator).__name__}: joblib "
            "export supports scikit-learn estimators only"
        )
    path = Path(path)
    with output_file(path) as part:
        joblib.dump(model.estimator, part)
    return path.stat().st_size
