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


MANY = 6_000_000


def write_many(path: Path) -> Path:
    """Write so many rows to a Parquet file that a test can meet a scoring in the middle."""
    some = rows(100_000).drop(columns="id")
    return write(pd.concat([some] * (MANY // len(some)), ignore_index=True), path, row_group_size=100_000)


def write(table: pd.DataFrame, path: Path, **options: Any) -> Path:
    if path.suffix == ".csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path, index=False, **options)
    return path
