"""What a version brings along to be judged by: the layout of the run's `evidence` folder.

holdout.parquet    the rows no training saw: columns as they came, the label's name, ROW_HASH
training_rows.npy  the hashes of the rows that it was trained on, sorted
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
    holdout = features.assign(**{labels.name: labels.to_numpy(), ROW_HASH: hashes})
    if len(holdout) > most:
        holdout = holdout.sample(most, random_state=0).sort_index()
    holdout.to_parquet(folder / "holdout.parquet", index=False)


def write_training_rows(folder: Path, hashes: npt.NDArray[np.uint64]) -> None:
    """Write the hashes of the training rows, 8 bytes a row."""
    np.save(folder / "training_rows.npy", np.sort(hashes))


def write_answer(folder: Path, answer: Answer) -> None:
    """Write rows and answers as JSON."""
    content = {
        "rows": json.loads(answer.rows.to_json(orient="split", index=False, double_precision=15)),
        "predictions": answer.predictions.tolist(),
        "probabilities": None if answer.probabilities is None else answer.probabilities.tolist(),
    }
    (folder / "answer.json").write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
