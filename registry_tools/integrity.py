"""What a version is made of: the manifest over its files, and the types its model may contain."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from registry_tools.errors import VerificationError

# Types outside scikit-learn's public ones that skops meets in the models of `pipeline`. Saving
# names them to MLflow; loading accepts these and no others, whatever a model's own file says.
TRUSTED_TYPES = (
    "numpy.dtype",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.metrics._dist_metrics.ChebyshevDistance64",
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.metrics._dist_metrics.ManhattanDistance64",
    "sklearn.metrics._dist_metrics.MinkowskiDistance64",
    "sklearn.neighbors._ball_tree.BallTree",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.tree._tree.Tree",
)

# Flavors whose own format holds numbers and no code, by the module that loads them, with the
# package that their `model_class` must come from and the endings of that format.
_NATIVE = {
    "mlflow.xgboost": ("xgboost", "xgboost.", (".xgb", ".json", ".ubj")),
    "mlflow.lightgbm": ("lightgbm", "lightgbm.", (".lgb", ".txt")),
    "mlflow.onnx": ("onnx", "onnx", (".onnx",)),
}

# MLflow writes this file into a local model folder whenever somebody loads it by reference.
WRITTEN_ON_LOAD = frozenset({"registered_model_meta"})

Manifest = dict[str, str]


def runs_code(flavors: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Return why loading a model of these flavors would run code of its own, None if it would not.

    Parameters
    ----------
    flavors
        The `flavors` of an `MLmodel` file: data from the model's maker, so nothing is taken for
        harmless that is not known to be.
    """
    generic = flavors.get("python_function", {})
    loader = str(generic.get("loader_module"))
    sklearn = flavors.get("sklearn", {})
    if any(flavor.get("code") for flavor in flavors.values()):
        return "it brings Python files (code_paths)"
    if loader == "mlflow.sklearn":
        return f"scikit-learn saved as {sklearn.get('serialization_format', 'pickle')}"
    if loader not in _NATIVE:
        return f"flavor {loader.removeprefix('mlflow.')}"
    name, package, endings = _NATIVE[loader]
    native = flavors.get(name, {})
    data = str(native.get("data") or generic.get("data"))
    if not data.endswith(endings):
        return f"{name} saved as {data}"
    if not str(native.get("model_class", package)).startswith(package):
        return f"{name} with the class {native['model_class']}"
    return None


def manifest_of(folder: Path) -> Manifest:
    """Return the SHA-256 (hex) of every file below a model folder, by its relative POSIX path."""
    files = sorted(p for p in folder.rglob("*") if not p.is_dir())
    return {
        path.relative_to(folder).as_posix(): sha256_of(path)
        for path in files
        if path.name not in WRITTEN_ON_LOAD
    }


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
        return digest.hexdigest()


def manifest_text(manifest: Mapping[str, str]) -> str:
    """Return the one spelling of a manifest: sorted JSON, a line a file."""
    return json.dumps(dict(manifest), indent=0, sort_keys=True) + "\n"


def digest_of(manifest: Mapping[str, str]) -> str:
    """Return the SHA-256 (hex) over a manifest: the digest that a version carries as a tag."""
    return hashlib.sha256(manifest_text(manifest).encode()).hexdigest()


def changes(expected: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """Return each difference between two manifests as a phrase, the files in order."""
    phrases = []
    for path in sorted({*expected, *found}):
        if path not in found:
            phrases.append(f"{path} is missing")
        elif path not in expected:
            phrases.append(f"{path} was added")
        elif expected[path] != found[path]:
            phrases.append(f"{path} was changed")
    return phrases


def check_files(folder: Path, digest: str, manifest: Mapping[str, str] | None = None) -> int:
    """Compare a model folder with what was registered, and return how many files it has.

    Parameters
    ----------
    folder
        The model's files.
    digest
        The digest of the manifest, as the version carries it.
    manifest
        The manifest itself, to name the files that differ. It counts for nothing where it does not
        have the digest.

    Raises
    ------
    VerificationError
        If any file was changed, added or removed since.
    """
    found = manifest_of(folder)
    if digest_of(found) == digest:
        return len(found)
    known = manifest is not None and digest_of(manifest) == digest
    what = "; ".join(changes(manifest or {}, found)[:5]) if known else "its files were changed"
    raise VerificationError(
        f"{what} after registration: the digest is {digest_of(found)[:12]}…, registered was "
        f"{digest[:12]}…; train again, or load another version"
    )
