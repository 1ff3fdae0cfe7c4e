"""The prediction log: a thread writes the rows and predictions of requests to Parquet files.

Each file is written atomically, so a file that ends in `.parquet` is complete. A killed process loses
the predictions since its last file.
"""

from __future__ import annotations

import contextlib
import logging
import random
import secrets
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from registry_tools.data.schema import NUMBERS
from registry_tools.files.temp_files import atomic_write
from registry_tools.inference.predictor import Predictor, skip_sklearn_validation
from registry_tools.serving.engine.prediction_events import PredictionEvent

_log = logging.getLogger(__name__)

FILE_ROWS = 100_000  # with this number of waiting rows, a file is written at once
_MOST_CELLS = 8_000_000  # the largest number of waiting values, tens of bytes each
_TORN_SECONDS = 600
_STEP_ROWS = 4096  # rows to convert in one step; between steps, requests can run

Count = Callable[[int, str], None]  # rows, and their outcome
Group = tuple[Predictor, str, Any]  # a version, a method, and a key of the part of their events


class PredictionLog:
    """Queues events and writes them; drops and counts them if the queue is full or a write fails."""

    def __init__(self, folder: Path, sample: float, seconds: float, count: Count) -> None:
        """Start the thread.

        Parameters
        ----------
        folder
            The folder for the files, which has a subfolder for each model.
        sample
            The share of requests to log, from 0 to 1. Requests of one batch are logged together.
        seconds
            The longest time until a prediction is written to a file.
        count
            Called with a number of rows and their outcome: `logged`, `dropped` because the queue was full,
            or `failed`.
        """
        self.error: str | None = None  # the time and the reason of the last error
        self._folder = folder
        self._sample = sample
        self._seconds = seconds
        self._count = count
        self._lock = threading.Lock()
        self._waiting: list[PredictionEvent] = []
        self._rows = 0
        self._cells = 0
        self._wake = threading.Event()
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
        self._thread.start()

    def observe(self, event: PredictionEvent) -> None:
        """Put an event into the queue; called on the event loop."""
        if random.random() >= self._sample:
            return
        rows = event.row_count
        tables = [table for table in event.rows if isinstance(table, pd.DataFrame)]
        texts = sum(int(table.memory_usage(deep=True).sum()) for table in tables)
        cells = rows * (len(event.predictor.info.signature or ()) + 4) + texts // 8
        with self._lock:
            full = self._cells + cells > _MOST_CELLS
            if not full and rows:
                self._rows += rows
                self._cells += cells
                self._waiting.append(event)
        if full:
            self._count(rows, "dropped")
        elif self._rows >= FILE_ROWS:
            self._wake.set()

    def close(self) -> None:
        """Write the waiting events, and end the thread."""
        self._ending = True
        self._wake.set()
        self._thread.join()

    @property
    def state(self) -> dict[str, Any]:
        """The state of the log, for `/model`."""
        return {"sample": self._sample, "last_error": self.error}

    def _run(self) -> None:
        skip_sklearn_validation()
        self._remove_torn()
        while not self._ending:
            self._wake.wait(self._seconds)
            self._wake.clear()
            self._write()
        self._write()

    def _remove_torn(self) -> None:
        """Remove temporary files of killed processes that are older than ten minutes."""
        with contextlib.suppress(OSError):
            for partial in self._folder.glob("*/.*.part"):
                if partial.stat().st_mtime < time.time() - _TORN_SECONDS:
                    partial.unlink()

    def _write(self) -> None:
        with self._lock:
            taken, self._waiting = self._waiting, []
            self._rows = self._cells = 0
        files: defaultdict[tuple[Predictor, pa.Schema], list[pa.Table]] = defaultdict(list)
        for (predictor, method, _), events in _group_events(taken).items():
            with self._count_failure(sum(event.row_count for event in events)):
                table = _table(predictor, method, events)
                files[predictor, table.schema].append(table)
        for (predictor, _), tables in files.items():
            rows = sum(map(len, tables))
            with self._count_failure(rows):
                self._write_file(predictor, tables)
                self._count(rows, "logged")

    @contextlib.contextmanager
    def _count_failure(self, rows: int) -> Iterator[None]:
        """Report an error of the body, which loses some rows; the thread and the other rows continue."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - a model or a disk can raise anything
            # The text of other errors may contain input values.
            reason = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
            _log.warning("the prediction log loses %d rows: %s", rows, reason)
            self.error = f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ} {reason}"
            self._count(rows, "failed")

    def _write_file(self, predictor: Predictor, tables: list[pa.Table]) -> None:
        folder = self._folder / predictor.artifact.name
        folder.mkdir(parents=True, exist_ok=True)
        now = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%f")
        # Not the process id: two containers can have the same one, and write at the same time.
        name = f"{now}-version-{predictor.label}-{secrets.token_hex(6)}.parquet"
        with atomic_write(folder / name, sync_folder=True) as partial:
            pq.write_table(pa.concat_tables(tables), partial)


def _group_events(events: list[PredictionEvent]) -> dict[Group, list[PredictionEvent]]:
    """Group the events for one table: matrices of one method up to a number of rows, or one DataFrame."""
    groups: defaultdict[Group, list[PredictionEvent]] = defaultdict(list)
    rows = 0
    for event in events:
        part = rows // _STEP_ROWS if isinstance(event.rows[0], np.ndarray) else object()  # a table of its own
        groups[event.predictor, event.method, part].append(event)
        rows += event.row_count
    return groups


def _table(predictor: Predictor, method: str, events: list[PredictionEvent]) -> pa.Table:
    """Return events as a table with a line for each row; features keep their names."""
    lengths = [len(outputs) for event in events for outputs in event.predictions]
    outputs = [one for event in events for many in event.predictions for one in many]
    ids = [name for event in events for name in event.request_ids]
    at = [event.at for event in events for _ in event.request_ids]
    parts = [rows for event in events for rows in event.rows]
    rows = np.concatenate(parts) if isinstance(parts[0], np.ndarray) else parts[0]
    predictions, probabilities = _predict_both(predictor, method, rows, outputs)
    columns: dict[str, Any] = {
        "_request_id": pa.array(ids).take(pa.array(np.repeat(np.arange(len(ids)), lengths))),
        "_row": np.concatenate([np.arange(length, dtype=np.int32) for length in lengths]),
        "_at": pa.array(np.repeat((np.array(at) * 1e6).astype(np.int64), lengths), pa.timestamp("us", "UTC")),
        "_model": pa.array([predictor.artifact.name] * len(outputs)).dictionary_encode(),
        "_version": np.full(len(outputs), predictor.artifact.version, np.int32),
        "_prediction": pa.array(predictions),
    }
    if predictor.info.target_names is not None:
        columns["_prediction_name"] = pa.array(predictor.names_of(predictions))
    if probabilities is not None:
        columns["_probabilities"] = pa.array(probabilities, pa.list_(pa.float64()))
    features = _features(predictor, rows)
    taken = {f"feature {name}" if name in columns else name: v for name, v in features.items()}
    return pa.table(taken | columns)


def _predict_both(predictor: Predictor, method: str, rows: Any, outputs: list[Any]) -> tuple[Any, Any]:
    """Return predictions and probabilities; predict the one that the request did not ask for."""
    other = "predict" if method == "predict_proba" else "predict_proba"
    if other not in predictor.example_predictions:
        return outputs, None
    if predictor.numeric_schema is not None and isinstance(rows, np.ndarray):
        found = predictor.predict(rows, other)
    else:
        found = predictor.mlflow_scoring.predict(rows, other)
    return (found, outputs) if method == "predict_proba" else (outputs, found)


def _features(predictor: Predictor, rows: Any) -> dict[str, Any]:
    """Return the feature columns in the types of the signature."""
    columns = predictor.info.signature
    if columns is None:
        table = pa.Table.from_pandas(pd.DataFrame(rows), preserve_index=False)
        return dict(zip(table.column_names, table.columns, strict=True))
    if isinstance(rows, np.ndarray):
        rows = pd.DataFrame(rows, columns=[column.name for column in columns])
    return {c.name: _to_arrow(rows[c.name], c.type) for c in columns if c.name in rows}


def _to_arrow(values: pd.Series, kind: str) -> pa.Array:
    # Not `arrow_coercion.to_arrow`, which turns NaN into null and fails for values outside the type. The
    # log keeps NaN, and integers with missing values as floats.
    if kind in NUMBERS:
        numbers = pd.to_numeric(values).to_numpy(np.float64)
        whole = np.dtype(NUMBERS[kind]).kind == "i" and np.isfinite(numbers).all()
        return pa.array(numbers).cast(pa.from_numpy_dtype(NUMBERS[kind])) if whole else pa.array(numbers)
    convert, target = (bool, pa.bool_()) if kind == "boolean" else (str, pa.string())
    return pa.array(values.astype(object).map(convert, na_action="ignore"), target, from_pandas=True)
