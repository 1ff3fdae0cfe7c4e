"""Write and read the evidence of a version: files for later checks, in the folder `evidence` of its run.

holdout.parquet            the held-out rows: the feature columns, then the label
training_rows.npz          the hashes of the training rows, their columns, and the columns with float32
                           values
recorded_predictions.json  the predictions for the input example, recorded at registration
evaluation.json            the task of the version, and the metric that its training chose
manifest.json              the SHA-256 of each file of the model and of the evidence; see `manifest`
manifest.sig               the signature of the manifest, if the version is signed
baseline.json,             the training baseline, which the monitoring compares with production data
baseline.parquet,
baseline_outcomes.parquet

The hash of a row covers its features only, because a label may be written as a code or as a name.
"""

from __future__ import annotations

import functools
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from registry_tools.data.row_hash import hash_rows
from registry_tools.errors import VerificationError, first_line
from registry_tools.models.inspection import archives
from registry_tools.models.inspection.metadata import check_size
from registry_tools.task import DEFAULT_METRICS

_MOST_JSON_BYTES = 64 << 20
_MOST_VALUES = 100_000_000  # of a holdout; `write_holdout` limits its rows
_HOLDOUT, _TRAINING_ROWS = "holdout.parquet", "training_rows.npz"
HOLDOUT_FILES = {_HOLDOUT, _TRAINING_ROWS}  # the files that `read_holdout` reads
EVALUATION_FILE = "evaluation.json"


@dataclass(frozen=True)
class Holdout:
    """Labelled rows to evaluate a version on."""

    rows: pd.DataFrame  # the feature columns
    labels: npt.NDArray[Any]  # class names, shape (rows,)
    # The hashes of rows that occur more than once in the original table, and their counts; shape (rows, 2).
    duplicates: npt.NDArray[np.uint64] = field(default_factory=lambda: np.empty((0, 2), np.uint64))

    @functools.cached_property
    def distinct(self) -> npt.NDArray[np.bool_]:
        """The mask of rows that do not repeat an earlier row and its label, shape (rows,)."""
        keys = pd.DataFrame({"features": hash_rows(self.rows), "label": self.labels})
        return ~np.asarray(keys.duplicated())

    def take(self, mask: npt.NDArray[np.bool_]) -> Holdout:
        """Return the rows of a mask, shape (rows,)."""
        return Holdout(self.rows[mask].reset_index(drop=True), self.labels[mask], self.duplicates)


@dataclass(frozen=True)
class TrainingRows:
    """The training rows of a version, as hashes over its feature columns."""

    columns: tuple[str, ...]
    hashes: npt.NDArray[np.uint64]  # sorted, shape (rows,)
    duplicates: npt.NDArray[np.uint64]  # as in `Holdout`
    float32_columns: tuple[str, ...] = ()  # the columns with float32 values only

    def missing_columns(self, rows: pd.DataFrame) -> list[str]:
        """Return the columns that rows lack; without them, their hashes cannot be compared."""
        return [name for name in self.columns if name not in rows]

    def rounded_columns(self, rows: pd.DataFrame) -> list[str]:
        """Return the columns of rows with narrower floats than the training rows had.

        The float32 of 0.1 differs from its float64, so the hashes of such rows differ. Whole numbers are
        not rounded.
        """
        return [
            name
            for name in self.columns
            if rows[name].dtype.kind == "f"
            and rows[name].dtype.itemsize < (4 if name in self.float32_columns else 8)
            and (rows[name] != rows[name].round())[rows[name].notna()].any()
        ]

    def hash(self, rows: pd.DataFrame) -> npt.NDArray[np.uint64]:
        """Hash rows as the training rows were hashed, shape (rows,): same columns, same rounding."""
        table = rows[list(self.columns)]
        rounded = [name for name in self.float32_columns if pd.api.types.is_float_dtype(table[name])]
        with np.errstate(over="ignore"):  # no training row has a value too large for a float32
            return hash_rows(table.astype(dict.fromkeys(rounded, "float32")))


@dataclass(frozen=True)
class RecordedPredictions:
    """Rows, and the predictions that the model made for them before it was saved."""

    rows: pd.DataFrame
    predictions: npt.NDArray[Any]  # shape (rows,)
    probabilities: npt.NDArray[np.float64] | None  # shape (rows, classes)


@dataclass(frozen=True)
class Evaluation:
    """The task of a version, and the name of the metric that its training chose."""

    task: str  # CLASSIFICATION or REGRESSION
    metric: str  # as for `find_metric`; never import a recorded `module:function`


def write_evaluation(folder: Path, evaluation: Evaluation) -> None:
    """Write the task and the metric as JSON."""
    (folder / EVALUATION_FILE).write_text(json.dumps(asdict(evaluation), indent=1, sort_keys=True) + "\n")


def read_evaluation(folder: Path) -> Evaluation | None:
    """Return the task and the metric of a version; None if they were not recorded."""
    path = folder / EVALUATION_FILE
    if not path.is_file():
        return None
    check_size(path, _MOST_JSON_BYTES)
    with translate_read_errors(path):
        content = json.loads(path.read_text())
        task, metric = content["task"], content["metric"]
        if task not in DEFAULT_METRICS or not isinstance(metric, str):
            raise ValueError(f"task {task!r} with metric {metric!r}")
        return Evaluation(task, metric)


def write_holdout(folder: Path, features: pd.DataFrame, labels: pd.Series, most: int = 100_000) -> None:
    """Write the holdout with its labels; of a larger holdout, write a sample of `most` rows."""
    holdout = features.copy()
    holdout[labels.name] = labels.to_numpy()
    if len(holdout) > most:
        holdout = holdout.sample(most, random_state=0).sort_index()
    holdout.to_parquet(folder / _HOLDOUT, index=False)


def write_training_rows(folder: Path, table: pd.DataFrame, training: pd.DataFrame) -> None:
    """Write the hashes of the training rows, and of rows that occur more than once in the whole table.

    Later checks need the repeated rows to distinguish a duplicate in the holdout from a training row
    that leaked into it. The float32 columns are recorded because rows are read as float64 later, and
    the float32 of 0.1 differs from its float64.

    Parameters
    ----------
    folder
        The evidence folder.
    table
        All rows before the split, with the feature columns.
    training
        The training rows among them.
    """
    hashes, counts = np.unique(hash_rows(table), return_counts=True)
    repeated = counts > 1
    arrays: dict[str, npt.NDArray[Any]] = {
        "columns": np.array([str(name) for name in training.columns]),
        "hashes": np.sort(hash_rows(training)),
        "duplicates": np.column_stack([hashes[repeated], counts[repeated].astype(np.uint64)]),
    }
    float32_columns = [str(name) for name in table.columns if _is_float32(table[name])]
    if float32_columns:
        arrays["float32_columns"] = np.array(float32_columns)
    np.savez(folder / _TRAINING_ROWS, **arrays)  # type: ignore[arg-type]


def _is_float32(column: pd.Series) -> bool:
    """Return whether a column holds floats that float32 represents exactly, or missing values."""
    if not pd.api.types.is_float_dtype(column):
        return False
    values = column.dropna().to_numpy("float64")
    with np.errstate(over="ignore"):
        return bool((values.astype("float32") == values).all())


def read_holdout(folder: Path) -> Holdout | None:
    """Return the holdout of a version; None if there is none.

    Raises
    ------
    VerificationError
        If the file is not readable. The other readers of this module raise the same error.
    """
    path = folder / _HOLDOUT
    if not path.is_file():
        return None
    with translate_read_errors(path):
        _check_rows(path)
        table = pd.read_parquet(path)
        labels = table.pop(table.columns[-1]).to_numpy(object)
        if table.empty or pd.isna(labels).any():
            raise ValueError("there are rows without features or label")
    training = read_training_rows(folder)
    return Holdout(table, labels, training.duplicates) if training is not None else Holdout(table, labels)


def _check_rows(path: Path) -> None:
    """Refuse a Parquet file with too many values, because a small file may expand to very many."""
    content = pq.read_metadata(path)
    values = content.num_rows * content.num_columns
    if values > _MOST_VALUES:
        raise VerificationError(
            f"evidence/{path.name} has {values:,} values, and at most {_MOST_VALUES:,} are supported: train "
            "again, or restore it"
        )


def read_training_rows(folder: Path) -> TrainingRows | None:
    """Return the training rows of a version; None if they were not recorded."""
    path = folder / _TRAINING_ROWS
    if not path.is_file():
        return None
    archives.check_zip(path, f"evidence/{path.name}")
    # Open the file here: NumPy does not close a file that it cannot read.
    with translate_read_errors(path), path.open("rb") as file, np.load(file) as content:
        columns = tuple(content["columns"].astype(str).tolist())
        return TrainingRows(
            columns,
            content["hashes"].astype(np.uint64).reshape(-1),
            content["duplicates"].astype(np.uint64).reshape(-1, 2),
            tuple(content.get("float32_columns", np.empty(0, str)).astype(str).tolist()),
        )


@contextmanager
def translate_read_errors(path: Path) -> Iterator[None]:
    """Raise errors of the body as a VerificationError that names the file of evidence."""
    try:
        yield
    # Any user who may write to the registry may have written any content.
    except (
        *(OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError),
        *(EOFError, ArithmeticError, zipfile.BadZipFile, pa.ArrowException),
    ) as error:
        reason = first_line(error, 150)
        raise VerificationError(f"evidence/{path.name} is not readable: {reason}") from error


def write_recorded_predictions(folder: Path, recorded: RecordedPredictions) -> None:
    """Write rows and their predictions as JSON."""
    # Write Python values, because pandas' own JSON rounds numbers.
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
    check_size(path, _MOST_JSON_BYTES)
    with translate_read_errors(path):
        content = json.loads(path.read_text())
        probabilities = content["probabilities"]
        return RecordedPredictions(
            pd.DataFrame(content["rows"]["data"], columns=content["rows"]["columns"]),
            np.asarray(content["predictions"]),
            None if probabilities is None else np.asarray(probabilities, dtype=float),
        )
