"""A registered estimator as a file for places without MLflow."""

from __future__ import annotations

from pathlib import Path

import joblib

from registry_tools.data.output_file import output_file
from registry_tools.errors import UnsupportedOperation
from registry_tools.models.loaded_model import LoadedModel


def export_joblib(model: LoadedModel, path: str | Path) -> int:
    """Write the scikit-learn estimator so that `joblib.load` reads it; return its size in bytes.

    The file appears whole or not at all.

    Raises
    ------
    UnsupportedOperation
        If the version holds no scikit-learn estimator.
    InputError
        If the file cannot be written.
    """
    if not hasattr(model.estimator, "get_params"):
        raise UnsupportedOperation(
            f"{model.info.name} version {model.info.version} is no scikit-learn estimator "
            f"({type(model.estimator).__name__}): joblib export supports only those"
        )
    path = Path(path)
    with output_file(path) as part:
        joblib.dump(model.estimator, part)
    return path.stat().st_size
