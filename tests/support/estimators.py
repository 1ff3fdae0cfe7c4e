"""An estimator that shows whether its pickle was loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression


class Tracer(LogisticRegression):
    """An estimator whose unpickling leaves a file behind."""

    def __init__(self, path: str = "") -> None:
        super().__init__()
        self.path = path

    def __setstate__(self, state: dict) -> None:
        Path(state["path"]).write_text("executed")
        self.__dict__.update(state)

    def predict(self, rows: pd.DataFrame) -> np.ndarray:
        return np.zeros(len(rows), dtype=int)
