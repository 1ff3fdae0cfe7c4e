"""What the command and its workers send to each other: the kinds of messages, and rows as bytes.

The command sends LOAD, then ROWS or ROW_GROUP. A worker replies RESULT or ERROR, and before it may
send PROGRESS.
"""

from __future__ import annotations

import pyarrow as pa

LOAD, ROWS, ROW_GROUP = "load", "rows", "row group"
RESULT, ERROR, PROGRESS = "result", "error", "progress"


def rows_to_buffer(rows: pa.RecordBatch) -> pa.Buffer:
    """Return rows as bytes."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_batch(rows)
    return sink.getvalue()


def rows_from_bytes(content: bytes) -> pa.RecordBatch:
    """Read what `rows_to_buffer` returned."""
    with pa.ipc.open_stream(pa.py_buffer(content)) as reader:
        return reader.read_next_batch()
