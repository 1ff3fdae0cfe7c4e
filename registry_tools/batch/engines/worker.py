"""A process that loads one version and predicts batches of rows until its input ends.

    python -m registry_tools.batch.engines.worker

Requests come on standard input, and replies go to its standard output. When the command is killed,
the input ends, and so does the worker.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
import sklearn
import skops.io  # noqa: F401 - while the command resolves the version

from registry_tools.batch.engines import messages
from registry_tools.batch.predictions import BatchPredictor, class_counts
from registry_tools.batch.readers.file_identity import FileIdentity
from registry_tools.batch.readers.read_rows import READ_BYTES
from registry_tools.errors import RegistryToolsError, error_summary
from registry_tools.inference.model_artifact import ModelArtifact
from registry_tools.inference.model_loader import load
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.processes import read_message, write_message

# So few rows at once that what is made of them stays in the processor's cache.
_STEP_ROWS = 1 << 14
_REPORT_SECONDS = 0.2


def _load_predictor(request: dict[str, Any]) -> BatchPredictor:
    policy = TrustPolicy(
        types=tuple(request["trust"]),
        allow_code=request["allow_code"],
        public_key=Path(request["public_key"]) if request["public_key"] else None,
    )
    predictor = load(ModelArtifact.from_json(request["source"]), policy)
    # Values that are not finite are found by the coercion; a model that takes missing values is
    # called with another setting.
    sklearn.set_config(assume_finite=True, skip_parameter_validation=True)
    return BatchPredictor(predictor, request["proba"], request["text"])


def _score_row_group(
    predictor: BatchPredictor, request: dict[str, Any], replies: IO[bytes]
) -> dict[str, Any]:
    """Read a row group, write its predictions, and return the result; report the progress."""
    names = [column.name for column in predictor.predictor.info.signature or ()]
    version = pa.scalar(predictor.predictor.artifact.version, pa.int32())
    parts: list[pa.RecordBatch] = []
    done, reported, reported_at = 0, 0, time.monotonic()
    for rows in _read_steps(request, names):
        predictions, bad = predictor.predict(rows)
        if bad:
            first = min(bad)
            return {"rows": 0, "counts": {}, "bad_row": [done + first, bad[first]], "unreported": 0}
        done += rows.num_rows
        if time.monotonic() > reported_at + _REPORT_SECONDS:
            write_message(replies, {"kind": messages.PROGRESS, "rows": done - reported})
            reported, reported_at = done, time.monotonic()
        versions = pa.repeat(version, predictions.num_rows)
        parts.append(predictions.add_column(2, "model_version", versions))
    table = pa.Table.from_batches(parts)
    dictionary = [name for name in table.schema.names if not name.startswith("probability_")]
    with pq.ParquetWriter(
        request["output"],
        table.schema,
        use_dictionary=dictionary,
        write_statistics=["prediction", "model_version"],  # those of names take as long as they
    ) as writer:
        writer.write_table(table, max(done, 1))
    counts = class_counts(table)
    return {"rows": done, "counts": counts, "bad_row": None, "unreported": done - reported}


def _read_steps(request: dict[str, Any], names: list[str]) -> Iterator[pa.RecordBatch]:
    """Read what the model takes of a row group, in small steps; at least an empty one."""
    identity = FileIdentity(request["path"], request["name"], tuple(request["fingerprint"]))
    with identity.reading(), pq.ParquetFile(identity.path, buffer_size=READ_BYTES, pre_buffer=False) as file:
        schema = file.schema_arrow
        there = [name for name in names if name in schema.names]
        if not file.metadata.row_group(request["index"]).num_rows:
            yield pa.RecordBatch.from_pylist([], pa.schema([schema.field(n) for n in there]))
            return
        yield from file.iter_batches(_STEP_ROWS, [request["index"]], there, use_threads=False)


def main() -> int:
    """Predict until the input ends."""
    for number in {signal.SIGINT, getattr(signal, "SIGHUP", signal.SIGINT)}:
        signal.signal(number, signal.SIG_IGN)  # the command ends it, in its own time
    pa.set_cpu_count(1)
    requests = sys.stdin.buffer
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a model prints is no reply
    gc.freeze()
    predictor: BatchPredictor | None = None
    while (message := read_message(requests)) is not None:
        request, body = message
        try:
            if request["kind"] == messages.LOAD:
                predictor = _load_predictor(request)
                columns = predictor.probability_columns()
                write_message(replies, {"kind": messages.RESULT, "columns": columns})
            elif predictor is not None and request["kind"] == messages.ROW_GROUP:
                result = _score_row_group(predictor, request, replies)
                write_message(replies, {"kind": messages.RESULT, **result})
            elif predictor is not None:
                predictions, bad = predictor.predict(messages.rows_from_bytes(body))
                head = {"kind": messages.RESULT, "bad": list(bad.items())}
                write_message(replies, head, messages.rows_to_buffer(predictions))
        except BrokenPipeError:
            return 1
        except RegistryToolsError as error:
            _write_error(replies, type(error).__name__, str(error))
        except Exception as error:  # noqa: BLE001 - whatever a model raises goes to the command
            _write_error(replies, "RegistryToolsError", error_summary(error, 300))
    return 0


def _write_error(replies: IO[bytes], kind: str, message: str) -> None:
    valid = message.encode("utf-8", "backslashreplace").decode()
    write_message(replies, {"kind": messages.ERROR, "type": kind, "message": valid})


if __name__ == "__main__":
    sys.exit(main())
