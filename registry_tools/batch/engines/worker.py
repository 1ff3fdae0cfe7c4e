"""A process that loads one version and answers batches of rows until nobody asks any more.

    python -m registry_tools.batch.worker

It is asked on standard input, and answers on what was its standard output. When whoever started it
is killed, its input ends, and so does it.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from registry_tools.batch.engines.messages import (
    ANSWER,
    ERROR,
    GROUP,
    PROGRESS,
    TOLD,
    packed,
    receive,
    send,
    unpacked,
)
from registry_tools.errors import RegistryToolsError
from registry_tools.inference.lazy_imports import hide_packages

with hide_packages("pytest"):
    import sklearn
    import skops.io  # noqa: F401 - while the command looks for the version

    from registry_tools.batch.engines.predictions import Answerer, counts_of
    from registry_tools.batch.readers.file_identity import Known
    from registry_tools.batch.readers.read_rows import READ_BYTES
    from registry_tools.inference.model_artifact import ModelArtifact
    from registry_tools.inference.model_loader import load
    from registry_tools.models.formats import TrustPolicy

# So few rows at once that what is made of them stays in the processor's cache.
_STEP_ROWS = 1 << 14
_SAID_SECONDS = 0.2


def _answerer(told: bytes) -> Answerer:
    asked = json.loads(told)
    policy = TrustPolicy(
        types=tuple(asked["trust"]),
        allow_code=asked["allow_code"],
        public_key=Path(asked["public_key"]) if asked["public_key"] else None,
    )
    predictor = load(ModelArtifact.from_json(asked["source"]), policy)
    # What is not finite is found by `columns`; a model that may learn from holes is told so there.
    sklearn.set_config(assume_finite=True, skip_parameter_validation=True)
    return Answerer(predictor, asked["proba"], asked["text"])


def _group(answerer: Answerer, asked: dict[str, Any], replies: IO[bytes]) -> dict[str, Any]:
    """Read a row group, write its answers, and tell of them; and how far it is, meanwhile."""
    names = [column.name for column in answerer.predictor.info.signature or ()]
    version = pa.scalar(answerer.predictor.artifact.version, pa.int32())
    parts: list[pa.RecordBatch] = []
    done, said, said_at = 0, 0, time.monotonic()
    for rows in _steps(asked, names):
        answers, bad = answerer.answer(rows)
        if bad:
            first = min(bad)
            return {"rows": 0, "counts": {}, "bad": [done + first, bad[first]], "unsaid": 0}
        done += rows.num_rows
        if time.monotonic() > said_at + _SAID_SECONDS:
            send(replies, PROGRESS, json.dumps(done - said).encode())
            said, said_at = done, time.monotonic()
        parts.append(answers.add_column(2, "model_version", pa.repeat(version, answers.num_rows)))
    table = pa.Table.from_batches(parts)
    dictionary = [name for name in table.schema.names if not name.startswith("probability_")]
    with pq.ParquetWriter(
        asked["part"],
        table.schema,
        use_dictionary=dictionary,
        write_statistics=["prediction", "model_version"],  # those of names take as long as they
    ) as writer:
        writer.write_table(table, max(done, 1))
    return {"rows": done, "counts": counts_of(table), "bad": None, "unsaid": done - said}


def _steps(asked: dict[str, Any], names: list[str]) -> Iterator[pa.RecordBatch]:
    """Read what the model takes of a row group, in small steps; at least an empty one."""
    known = Known(asked["path"], asked["shown"], tuple(asked["mark"]))
    with (
        known.read(),
        pq.ParquetFile(known.path, buffer_size=READ_BYTES, pre_buffer=False) as file,
    ):
        schema = file.schema_arrow
        there = [name for name in names if name in schema.names]
        if not file.metadata.row_group(asked["place"]).num_rows:
            yield pa.RecordBatch.from_pylist([], pa.schema([schema.field(n) for n in there]))
            return
        yield from file.iter_batches(_STEP_ROWS, [asked["place"]], there, use_threads=False)


def main() -> int:
    """Answer until the input ends."""
    for number in {signal.SIGINT, getattr(signal, "SIGHUP", signal.SIGINT)}:
        signal.signal(number, signal.SIG_IGN)  # the command ends it, in its own time
    pa.set_cpu_count(1)
    requests = sys.stdin.buffer
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a model prints is no answer
    gc.freeze()
    answerer: Answerer | None = None
    while (message := receive(requests)) is not None:
        kind, content = message
        try:
            if kind == TOLD:
                answerer = _answerer(content)
                send(replies, TOLD, json.dumps(answerer.classes()).encode())
            elif answerer is not None and kind == GROUP:
                told = _group(answerer, json.loads(content), replies)
                send(replies, ANSWER, json.dumps(told).encode())
            elif answerer is not None:
                rows, _ = unpacked(content)
                answers, bad = answerer.answer(rows)
                send(replies, ANSWER, packed(answers, bad))
        except BrokenPipeError:
            return 1
        except RegistryToolsError as error:
            send(replies, ERROR, json.dumps([type(error).__name__, str(error)]).encode())
        except Exception as error:  # noqa: BLE001 - whatever a model does is told to the command
            said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            send(replies, ERROR, json.dumps(["RegistryToolsError", said]).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
