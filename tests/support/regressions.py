"""Regression models of scikit-learn's diabetes table, as versions with evidence."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.models import infer_signature
from sklearn.base import RegressorMixin
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.tree import DecisionTreeRegressor

from registry_tools import adopt
from registry_tools.models.trust_policy import TRUSTED_TYPES
from tests.support.registries import Place

TARGET = "progression"
TABLE = load_diabetes(as_frame=True)
FEATURES = TABLE.data
LABELS = TABLE.target.to_numpy()
HELD_OUT = np.arange(len(LABELS)) % 3 == 0  # 148 rows
# On the held-out rows, their root mean squared errors are 53.8, 54.1, 68.0 and 76.3; the labels' mean has
# 79.5, and the last is not significantly better.
GOOD, SIMILAR, POOR, USELESS = (
    model.fit(FEATURES[~HELD_OUT], LABELS[~HELD_OUT])
    for model in (LinearRegression(), Ridge(0.05), Ridge(3.0), DecisionTreeRegressor(random_state=0))
)
_numbers = itertools.count(1)


def held_out_rows() -> pd.DataFrame:
    """Return the rows that no model was trained on, with the label column."""
    return FEATURES[HELD_OUT].assign(**{TARGET: LABELS[HELD_OUT]}).reset_index(drop=True)


def log_regressions(place: Place, *models: RegressorMixin, **options: Any) -> str:
    """Register models by MLflow's own means, as versions 1, 2, … of a new one; return its name."""
    name = f"diabetes-{os.getpid()}-{next(_numbers)}"
    mlflow.set_tracking_uri(place.uri)
    try:
        for model in models:
            with mlflow.start_run():
                mlflow.sklearn.log_model(
                    model,
                    name="model",
                    signature=infer_signature(FEATURES),
                    serialization_format="skops",
                    skops_trusted_types=list(TRUSTED_TYPES),
                    pip_requirements=[],
                    registered_model_name=name,
                    **options,
                )
    finally:
        mlflow.set_tracking_uri(None)
    return name


def regressions(place: Place, *models: RegressorMixin, versions: Sequence[int] = ()) -> str:
    """Register models, and make the evidence of their versions from the held-out rows."""
    name = log_regressions(place, *models)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rows.csv")
        held_out_rows().to_csv(path, index=False)
        for number in versions or range(1, len(models) + 1):
            adopt(f"{name}/{number}", eval_data=path, target=TARGET, tracking_uri=place.uri)
    return name
