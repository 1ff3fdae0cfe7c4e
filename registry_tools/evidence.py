"""What a version brings along to be judged by: the layout of the run's `evidence` folder.

holdout.parquet    the rows no training saw: columns as trained on, the label's name, ROW_HASH
training_rows.npy  the hashes of the rows that it was trained on, sorted
split.json         how many rows of the holdout have an exact copy among the training rows
answer.json        its answer to its input example, recorded when it was registered
manifest.json      the SHA-256 of each file of the model
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

FOLDER = "evidence"
ROW_HASH = "__row_hash__"


@dataclass(frozen=True)
class Holdout:
    """Rows to judge a version by."""

    rows: pd.DataFrame  # the feature columns
    labels: npt.NDArray[Any]  # class names, shape (rows,)
    hashes: npt.NDArray[np.uint64]  # shape (rows,)
    duplicates: int = 0  # rows with an exact copy among the training rows of their table

    def take(self, keep: npt.NDArray[np.bool_]) -> Holdout:
        """Return the rows where `keep` is true."""
        rows = self.rows[keep].reset_index(drop=True)
        return Holdout(rows, self.labels[keep], self.hashes[keep], self.duplicates)


@dataclass(frozen=True)
class Answer:
    """Rows, and what the model answered to them before it was saved."""

    rows: pd.DataFrame
    predictions: npt.NDArray[Any]  # shape (rows,)
    probabilities: npt.NDArray[np.float64] | None  # shape (rows, classes)


def write_holdout(
    folder: Path,
    features: pd.DataFrame,
    labels: pd.Series,
    hashes: npt.NDArray[np.uint64],
    most: int = 100_000,
) -> None:
    """Write the holdout with its labels and row hashes, a sample of `most` rows if it is larger."""
    holdout = features.copy()
    holdout[labels.name] = labels.to_numpy()
    holdout[ROW_HASH] = hashes
    if len(holdout) > most:
        holdout = holdout.sample(most, random_state=0).sort_index()
    holdout.to_parquet(folder / "holdout.parquet", index=False)


def write_training_rows(folder: Path, hashes: npt.NDArray[np.uint64]) -> None:
    """Write the hashes of the training rows, 8 bytes a row."""
    np.save(folder / "training_rows.npy", np.sort(hashes))


def write_split(
    folder: Path, holdout: npt.NDArray[np.uint64], train: npt.NDArray[np.uint64]
) -> None:
    """Write what is known of the split when it is made: after it, a copy looks like a leak."""
    content = {"duplicate_rows": int(np.isin(holdout, train).sum())}
    (folder / "split.json").write_text(json.dumps(content) + "\n")


def read_holdout(folder: Path) -> Holdout | None:
    """Return the holdout that was logged; None if there is none."""
    path = folder / "holdout.parquet"
    if not path.is_file():
        return None
    table = pd.read_parquet(path)
    hashes = table.pop(ROW_HASH).to_numpy(np.uint64)
    labels = table.pop(table.columns[-1]).to_numpy(object)
    split = folder / "split.json"
    duplicates = json.loads(split.read_text())["duplicate_rows"] if split.is_file() else 0
    return Holdout(table, labels, hashes, duplicates)


def read_training_rows(folder: Path) -> npt.NDArray[np.uint64] | None:
    """Return the hashes of the training rows, shape (rows,); None if they were not logged."""
    path = folder / "training_rows.npy"
    return np.load(path, allow_pickle=False) if path.is_file() else None


def read_manifest(folder: Path) -> dict[str, str] | None:
    """Return the manifest made at registration; None if there is none."""
    path = folder / "manifest.json"
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def write_answer(folder: Path, answer: Answer) -> None:
    """Write rows and answers as JSON."""
    # Value by value: pandas' own JSON rounds.
    rows = answer.rows.astype(object).where(answer.rows.notna(), None)
    content = {
        "rows": {"columns": list(rows.columns), "data": rows.to_numpy(object).tolist()},
        "predictions": answer.predictions.tolist(),
        "probabilities": None if answer.probabilities is None else answer.probabilities.tolist(),
    }
    (folder / "answer.json").write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


def read_answer(folder: Path) -> Answer | None:
    """Return the recorded answer; None if there is none."""
    path = folder / "answer.json"
    if not path.is_file():
        return None
    content = json.loads(path.read_text())
    probabilities = content["probabilities"]
    return Answer(
        pd.DataFrame(**content["rows"]),
        np.asarray(content["predictions"]),
        None if probabilities is None else np.asarray(probabilities),
    )
