"""The table of a training: features, labels and row hashes, in one `Dataset`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from registry_tools.task import CLASSIFICATION


@dataclass(frozen=True)
class Dataset:
    """A table ready for training.

    `features` has shape (rows, columns), with int64, float64, text (object) and boolean columns (object
    if values are missing). `labels` has shape (rows,): the position of each class in `target_names`, or
    for a regression the numbers, float64. `hashes` has shape (rows,), one 64-bit hash over the raw
    values of each row. All three use the index 0 to rows - 1. Rows with the same number in `units`,
    shape (rows,), are never separated by a split: equal rows apart from the label, or the rows of one
    group.
    """

    features: pd.DataFrame
    labels: pd.Series
    target: str
    target_names: tuple[str, ...]  # empty for a regression
    hashes: npt.NDArray[np.uint64]
    source: str
    digest: str  # SHA-256 in hex, of the file, or of the content if the table is not a file
    units: npt.NDArray[np.uint64]
    times: npt.NDArray[Any] | None = None  # shape (rows,); None without `time`
    weights: npt.NDArray[np.float64] | None = None  # shape (rows,); None without `weight`
    task: str = CLASSIFICATION  # or REGRESSION

    def label_values(self) -> npt.NDArray[Any]:
        """Return the class name or the number of each row, shape (rows,)."""
        if not self.target_names:
            return self.labels.to_numpy()
        return np.asarray(self.target_names, dtype=object)[self.labels]

    def take(self, rows: npt.NDArray[np.int64]) -> Dataset:
        """Return a dataset of the rows at these positions, shape (chosen rows,)."""
        return replace(
            self,
            features=self.features.iloc[rows].reset_index(drop=True),
            labels=self.labels.iloc[rows].reset_index(drop=True),
            hashes=self.hashes[rows],
            units=self.units[rows],
            times=None if self.times is None else self.times[rows],
            weights=None if self.weights is None else self.weights[rows],
        )

    def rows_digest(self) -> str:
        """Return the SHA-256 of the row hashes and the labels, in their order."""
        return hashlib.sha256(self.hashes.tobytes() + self.labels.to_numpy().tobytes()).hexdigest()


def quoted_values(values: Iterable[object]) -> str:
    """Return at most eight values in quotes, separated by commas, for a message."""
    texts = [repr(str(value)) for value in values]
    return ", ".join(texts[:8]) + (f", … ({len(texts)} in all)" if len(texts) > 8 else "")
