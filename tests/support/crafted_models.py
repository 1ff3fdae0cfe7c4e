"""Write minimal model folders that the loader accepts, and change their skops archives."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import skops.io
import yaml

from registry_tools.models.folder_loader import load_folder
from registry_tools.models.loaded_model import LoadedModel
from registry_tools.models.trust_policy import TrustPolicy


def save_model(folder: Path, model: Any, **mlmodel: Any) -> Path:
    """Write a model as skops with its `MLmodel`, and return the folder."""
    folder.mkdir(exist_ok=True)
    skops.io.dump(model, folder / "model.skops")
    flavor = {"serialization_format": "skops", "pickled_model": "model.skops"}
    generic = {"loader_module": "mlflow.sklearn", "model_path": "model.skops"}
    content = {"flavors": {"sklearn": flavor, "python_function": generic}, **mlmodel}
    (folder / "MLmodel").write_text(yaml.safe_dump(content))
    return folder


def load(folder: Path, *trust: str) -> LoadedModel:
    """Load a model folder with the same function that the commands use."""
    return load_folder(folder, TrustPolicy(types=trust))


def rewrite_archive(path: Path, change: Callable[[dict[str, Any], dict[str, bytes]], Any]) -> None:
    """Change a skops archive: the function receives its schema and its other files, by name."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    schema = json.loads(files.pop("schema.json"))
    change(schema, files)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        archive.writestr("schema.json", json.dumps(schema))
