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

# Flavors whose own format holds numbers and no code: the classes that are read from it, and the
# endings of their files. Every other class of theirs MLflow unpickles, whatever its file is called.
_NATIVE = {
    "xgboost": (
        {
            "xgboost.core.Booster",
            "xgboost.sklearn.XGBClassifier",
            "xgboost.sklearn.XGBRanker",
            "xgboost.sklearn.XGBRegressor",
            "xgboost.sklearn.XGBRFClassifier",
            "xgboost.sklearn.XGBRFRegressor",
        },
        (".xgb", ".json", ".ubj"),
    ),
    "lightgbm": ({"lightgbm.basic.Booster"}, (".lgb", ".txt")),
    "onnx": (set(), (".onnx",)),
}

# MLflow writes this file into a local model folder whenever somebody loads it by reference.
WRITTEN_ON_LOAD = frozenset({"registered_model_meta"})

Manifest = dict[str, str]

# The folder among the artifacts of a run where the evidence of its version lies.
EVIDENCE = "evidence"


def format_of(flavors: Mapping[str, Mapping[str, Any]]) -> tuple[str, str]:
    """Return the one format that a model is to be loaded by, and the file that holds it.

    Parameters
    ----------
    flavors
        The `flavors` of an `MLmodel` file: words of the model's maker, so nothing is taken for
        harmless that is not known to be.

    Returns
    -------
    format
        `skops`, `xgboost`, `lightgbm` or `onnx`; none of them runs code of its own.
    file
        Relative to the model's folder.

    Raises
    ------
    RunsCode
        If loading the model would run code of its own; the message says why.
    """
    generic = flavors.get("python_function", {})
    others = sorted(set(flavors) - {"python_function"})
    if any(flavor.get("code") for flavor in flavors.values()):
        raise RunsCode("it brings Python files (code_paths)")
    if others == ["sklearn"]:
        flavor = flavors["sklearn"]
        if flavor.get("serialization_format") == "skops":
            return "skops", str(flavor.get("pickled_model"))
        raise RunsCode(f"scikit-learn saved as {flavor.get('serialization_format', 'pickle')}")
    loader = str(generic.get("loader_module"))
    if len(others) != 1 or others[0] not in _NATIVE or loader != f"mlflow.{others[0]}":
        raise RunsCode(f"flavor {', '.join(others) or loader.removeprefix('mlflow.')}")
    name = others[0]
    classes, endings = _NATIVE[name]
    flavor = flavors[name]
    files = {str(place["data"]) for place in (flavor, generic) if "data" in place}
    if len(files) != 1 or "/" in min(files) or not min(files).endswith(endings):
        raise RunsCode(f"{name} saved as {', '.join(sorted(files)) or 'nothing that it names'}")
    if classes and flavor.get("model_class", min(classes)) not in classes:
        raise RunsCode(f"{name} with the class {flavor['model_class']}")
    return name, min(files)


class RunsCode(Exception):
    """Loading a model would run code of its own."""


def file_in(folder: Path, name: str) -> Path:
    """Return a file of a model by the name that its `MLmodel` gives.

    Raises
    ------
    VerificationError
        If it lies outside the folder, or is none of the files that were compared.
    """
    path = (folder / name).resolve()
    inside = path.is_relative_to(folder.resolve()) and path.is_file()
    if not inside or name in WRITTEN_ON_LOAD:
        raise VerificationError(f"MLmodel names {name!r}, which is no file of the model")
    return path


def manifest_of(folder: Path) -> Manifest:
    """Return the SHA-256 (hex) of every file below a model folder, by its relative POSIX path.

    Raises
    ------
    VerificationError
        If something there is neither a file nor a folder, such as a symbolic link.
    """
    files = sorted(p for p in folder.rglob("*") if p.is_symlink() or not p.is_dir())
    for path in files:
        if path.is_symlink() or not path.is_file():
            raise VerificationError(f"{path.relative_to(folder)} is no plain file")
    named = {path.relative_to(folder).as_posix(): path for path in files}
    return {name: sha256_of(path) for name, path in named.items() if name not in WRITTEN_ON_LOAD}


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
        return digest.hexdigest()


def read_manifest(folder: Path) -> Manifest | None:
    """Return the manifest made at registration; None if there is none."""
    path = folder / "manifest.json"
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


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
