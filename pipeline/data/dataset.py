"""The table that a training learns from: features, label codes and row hashes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd


@dataclass(frozen=True)
class Dataset:
    """A table ready for training.

    `features` has int64, float64, text (object) and boolean columns (object with missing values);
    `labels` holds integer codes, the position in `target_names`; `hashes` has one 64-bit hash a
    row over all columns as they came. All three share one index, 0 to rows - 1.
    """

    features: pd.DataFrame
    labels: pd.Series
    target: str
    target_names: tuple[str, ...]
    hashes: npt.NDArray[np.uint64]
    source: str
    digest: str  # SHA-256, hex: of the file, or of the content where there is no file

    def take(self, rows: npt.NDArray[np.int64]) -> Dataset:
        """Return the dataset of these rows, by position."""
        return Dataset(
            self.features.iloc[rows].reset_index(drop=True),
            self.labels.iloc[rows].reset_index(drop=True),
            self.target,
            self.target_names,
            self.hashes[rows],
            self.source,
            self.digest,
        )


def quoted_values(values: Iterable[object]) -> str:
    texts = [repr(str(value)) for value in values]
    return ", ".join(texts[:8]) + (f", … ({len(texts)} in all)" if len(texts) > 8 else "")
