"""The evidence of a version: the files in the folder `manifest.EVIDENCE` of its run that later
checks rely on.

holdout.parquet            the rows no training saw: columns as trained on, the label, ROW_HASH
training_row_hashes.npy    the hashes of the rows that it was trained on, sorted
duplicate_rows.npy         the hashes of the rows that stand in the table more than once, and how
                           often
recorded_predictions.json  its predictions for its input example, recorded at registration
manifest.json              the SHA-256 of each file of the model
baseline.json, baseline.parquet, which a monitor compares production data with: see its module

The hash of a row is that of its features: a label may be written in more than one way.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from registry_tools.data.row_hash import hash_rows
from registry_tools.errors import VerificationError, first_line

ROW_HASH = "__row_hash__"


@dataclass(frozen=True)
class Holdout:
    """Rows to evaluate a version on."""

    rows: pd.DataFrame  # the feature columns
    labels: npt.NDArray[Any]  # class names, shape (rows,)
    hashes: npt.NDArray[np.uint64]  # shape (rows,)
    # Rows that stand in their table more than once, and how often; shape (rows, 2).
    duplicates: npt.NDArray[np.uint64] = field(default_factory=lambda: np.empty((0, 2), np.uint64))

    def take(self, mask: npt.NDArray[np.bool_]) -> Holdout:
        """Return the rows where `mask` is true."""
        rows = self.rows[mask].reset_index(drop=True)
        return Holdout(rows, self.labels[mask], self.hashes[mask], self.duplicates)


@dataclass(frozen=True)
class RecordedPredictions:
    """Rows, and what the model predicted for them before it was saved."""

    rows: pd.DataFrame
    predictions: npt.NDArray[Any]  # shape (rows,)
    probabilities: npt.NDArray[np.float64] | None  # shape (rows, classes)


def write_holdout(folder: Path, features: pd.DataFrame, labels: pd.Series, most: int = 100_000) -> None:
    """Write the holdout with its labels and row hashes, a sample of `most` rows if it is larger."""
    holdout = features.copy()
    holdout[labels.name] = labels.to_numpy()
    holdout[ROW_HASH] = hash_rows(features)
    if len(holdout) > most:
        holdout = holdout.sample(most, random_state=0).sort_index()
    holdout.to_parquet(folder / "holdout.parquet", index=False)


def write_training_rows(folder: Path, table: pd.DataFrame, training: pd.DataFrame) -> None:
    """Write which rows of a table were trained on, and which stand in it more than once.

    The latter is taken from the table itself, before any split: later checks can then
    distinguish a duplicate on the other side from a row on both sides.
    """
    np.save(folder / "training_row_hashes.npy", np.sort(hash_rows(training)))
    hashes, counts = np.unique(hash_rows(table), return_counts=True)
    repeated = counts > 1
    duplicates = np.column_stack([hashes[repeated], counts[repeated].astype(np.uint64)])
    np.save(folder / "duplicate_rows.npy", duplicates)


def read_holdout(folder: Path) -> Holdout | None:
    """Return the holdout that was logged; None if there is none.

    Raises
    ------
    VerificationError
        If it is not readable, as every reader here.
    """
    path = folder / "holdout.parquet"
    if not path.is_file():
        return None
    with _translate_read_errors(path):
        table = pd.read_parquet(path)
        hashes = table.pop(ROW_HASH).to_numpy(np.uint64)
        labels = table.pop(table.columns[-1]).to_numpy(object)
        if table.empty or pd.isna(labels).any():
            raise ValueError("there are rows without features or label")
    duplicates = _read_array(folder / "duplicate_rows.npy")
    if duplicates is None or duplicates.ndim != 2 or duplicates.shape[1] != 2:
        duplicates = np.empty((0, 2), np.uint64)
    return Holdout(table, labels, hashes, duplicates)


def read_training_rows(folder: Path) -> npt.NDArray[np.uint64] | None:
    """Return the hashes of the training rows, shape (rows,); None if they were not logged."""
    return _read_array(folder / "training_row_hashes.npy")


def _read_array(path: Path) -> npt.NDArray[np.uint64] | None:
    if not path.is_file():
        return None
    with _translate_read_errors(path):
        return np.load(path, allow_pickle=False).astype(np.uint64)


@contextmanager
def _translate_read_errors(path: Path) -> Iterator[None]:
    try:
        yield
    # Whoever may write to the registry may write anything there.
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        reason = first_line(error, 150)
        raise VerificationError(f"evidence/{path.name} is not readable: {reason}") from error


def write_recorded_predictions(folder: Path, recorded: RecordedPredictions) -> None:
    """Write rows and predictions as JSON."""
    # Value by value: pandas' own JSON rounds.
    rows = recorded.rows.astype(object).where(recorded.rows.notna(), None)
    content = {
        "rows": {"columns": list(rows.columns), "data": rows.to_numpy(object).tolist()},
        "predictions": recorded.predictions.tolist(),
        "probabilities": None if recorded.probabilities is None else recorded.probabilities.tolist(),
    }
    text = json.dumps(content, indent=1, sort_keys=True) + "\n"
    (folder / "recorded_predictions.json").write_text(text)


def read_recorded_predictions(folder: Path) -> RecordedPredictions | None:
    """Return the recorded predictions; None if there are none."""
    path = folder / "recorded_predictions.json"
    if not path.is_file():
        return None
    with _translate_read_errors(path):
        content = json.loads(path.read_text())
        probabilities = content["probabilities"]
        return RecordedPredictions(
            pd.DataFrame(content["rows"]["data"], columns=content["rows"]["columns"]),
            np.asarray(content["predictions"]),
            None if probabilities is None else np.asarray(probabilities, dtype=float),
        )
