"""The trust policy: the types and formats that a model may contain, and the key that must sign it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# Types in the models of `pipeline` that skops does not trust by default. Loading accepts only these, even
# if the model's own file lists more types.
#
# The boosters of XGBoost and LightGBM hold bytes or text that the C++ code of these libraries parses when
# skops restores them by `__setstate__`, as for their native formats. No Python code of the file runs.
TRUSTED_TYPES = (
    "collections.OrderedDict",  # in a booster of LightGBM
    "lightgbm.basic.Booster",
    "lightgbm.sklearn.LGBMClassifier",
    "lightgbm.sklearn.LGBMRegressor",
    "numpy.dtype",
    "registry_tools.data.dates.date_parts",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.metrics._dist_metrics.ChebyshevDistance64",
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.metrics._dist_metrics.ManhattanDistance64",
    "sklearn.metrics._dist_metrics.MinkowskiDistance64",
    "sklearn.model_selection._split.KFold",
    "sklearn.model_selection._split.StratifiedKFold",
    "sklearn.neighbors._ball_tree.BallTree",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.tree._tree.Tree",
    "xgboost.core.Booster",
    "xgboost.sklearn.XGBClassifier",
    "xgboost.sklearn.XGBRegressor",
)


@dataclass(frozen=True)
class TrustPolicy:
    """The types and formats that the operator allows in a model."""

    types: tuple[str, ...] = ()  # in addition to `TRUSTED_TYPES`
    allow_code: bool = False  # load formats that can run code: pickle, Python models, code paths
    public_key: Path | None = None  # load only versions that this key signed; None needs no signature

    @classmethod
    def from_environment(
        cls, trust: Sequence[str] = (), allow_code: bool = False, public_key: str | None = None
    ) -> TrustPolicy:
        """Return the policy from the arguments and the environment together.

        REGISTRY_TOOLS_TRUST lists types, separated by commas. REGISTRY_TOOLS_PUBLIC_KEY names a key file.
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
        """All allowed types, in addition to those that skops trusts by default."""
        return (*TRUSTED_TYPES, *self.types)
