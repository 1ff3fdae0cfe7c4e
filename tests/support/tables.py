"""Make tables of rows to score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.datasets import load_iris

from tests.support.constants import IRIS_COLUMNS


def rows(count: int = 1000) -> pd.DataFrame:
    """Return rows drawn from Iris with noise, and an id column that the model does not use."""
    values = load_iris().data
    rng = np.random.default_rng(3)
    noisy = (values[rng.integers(0, len(values), count)] + rng.normal(0, 0.1, (count, 4))).round(2)
    table = pd.DataFrame(noisy, columns=IRIS_COLUMNS)
    table.insert(0, "id", [f"{n:06}" for n in range(count)])
    return table


def write(table: pd.DataFrame, path: Path, **options: Any) -> Path:
    if path.suffix == ".csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path, index=False, **options)
    return path
