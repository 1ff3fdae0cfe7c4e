"""Which types and formats the operator allows a model to contain, and whose signature it needs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# Types outside scikit-learn's public ones that skops meets in the models of `pipeline`. Saving
# names them to MLflow; loading accepts these and no others, also if a model's own file lists more.
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


@dataclass(frozen=True)
class TrustPolicy:
    """The types and formats that the operator allows a model to contain."""

    types: tuple[str, ...] = ()  # beyond `TRUSTED_TYPES`
    allow_code: bool = False  # load formats that run code: pickle, Python models, code paths
    public_key: Path | None = None  # load only versions with a signature of this key

    @classmethod
    def from_environment(
        cls, trust: Sequence[str] = (), allow_code: bool = False, public_key: str | None = None
    ) -> TrustPolicy:
        """Return the policy of the caller and the environment together.

        REGISTRY_TOOLS_TRUST names types between commas, REGISTRY_TOOLS_PUBLIC_KEY a key file.
        """
        names = os.environ.get("REGISTRY_TOOLS_TRUST", "").split(",")
        key = public_key or os.environ.get("REGISTRY_TOOLS_PUBLIC_KEY")
        return cls(
            types=(*(name.strip() for name in names if name.strip()), *trust),
            allow_code=allow_code,
            public_key=Path(key) if key else None,
        )

    @property
    def trusted(self) -> tuple[str, ...]:
        """All types that a model may contain, without the types that skops trusts itself."""
        return (*TRUSTED_TYPES, *self.types)
