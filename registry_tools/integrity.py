"""What a version is made of: the manifest over its files, and the types its model may contain."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from registry_tools.errors import VerificationError

# Types outside scikit-learn's public ones that skops meets in the models of `pipeline`. Saving
# names them to MLflow; loading accepts these and no others, whatever a model's own file says.
TRUSTED_TYPES = (
    "numpy.dtype",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.metrics._dist_metrics.ManhattanDistance64",
    "sklearn.metrics._dist_metrics.MinkowskiDistance64",
    "sklearn.neighbors._ball_tree.BallTree",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.tree._tree.Tree",
)

# MLflow writes this file into a local model folder whenever somebody loads it by reference.
_WRITTEN_ON_LOAD = frozenset({"registered_model_meta"})

Manifest = dict[str, str]


def manifest_of(folder: Path) -> Manifest:
    """Return the SHA-256 (hex) of every file below a model folder, by its relative POSIX path."""
    files = sorted(p for p in folder.rglob("*") if not p.is_dir())
    return {
        path.relative_to(folder).as_posix(): sha256_of(path)
        for path in files
        if path.name not in _WRITTEN_ON_LOAD
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


def check_files(folder: Path, digest: str) -> None:
    """Compare a model folder with the digest that was registered.

    Raises
    ------
    VerificationError
        If any file was changed, added or removed since.

    """
    found = digest_of(manifest_of(folder))
    if found != digest:
        raise VerificationError(
            f"the model files have digest {found[:12]}…, registered was {digest[:12]}…: "
            "they were changed after registration; train again, or load another version"
        )
