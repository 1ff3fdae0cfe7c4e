"""Save models, and load them in this process as the server does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import yaml

from registry_tools.inference.model_artifact import ModelArtifact
from registry_tools.inference.model_loader import load
from registry_tools.inference.predictor import Predictor
from registry_tools.models.trust_policy import TrustPolicy


def save_and_load(
    folder: Path, model: Any, edit: Callable[[dict[str, Any]], None] | None = None, **options: Any
) -> Predictor:
    """Save a model as `penguins` version 7041, edit its `MLmodel`, and load it; Python models are allowed."""
    options["pip_requirements"] = []
    if isinstance(model, mlflow.pyfunc.PythonModel):
        mlflow.pyfunc.save_model(folder / "model", python_model=model, **options)
    else:
        mlflow.sklearn.save_model(model, folder / "model", serialization_format="skops", **options)
    if edit is not None:
        content = yaml.safe_load((folder / "model" / "MLmodel").read_text())
        edit(content)
        (folder / "model" / "MLmodel").write_text(yaml.safe_dump(content))
    artifact = ModelArtifact(str(folder), "penguins", 7041, "production", None, None)
    return load(artifact, TrustPolicy(allow_code=True))
