"""What goes over the pipes between the command and its workers: a kind, a length, and bytes."""

from __future__ import annotations

import json
import struct
from typing import IO, Any

import pyarrow as pa

TOLD, ROWS, GROUP, ANSWER, ERROR, PROGRESS = b"T", b"R", b"G", b"A", b"E", b"P"
_HEAD = struct.Struct("<cq")
_BAD = b"bad"


def send(stream: IO[bytes], kind: bytes, content: bytes | pa.Buffer) -> None:
    """Write one message."""
    stream.write(_HEAD.pack(kind, len(content)))
    stream.write(content)
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[bytes, bytes] | None:
    """Read one message; None if the other side has ended."""
    head = stream.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    kind, length = _HEAD.unpack(head)
    content = stream.read(length)
    return (kind, content) if len(content) == length else None


def packed(rows: pa.RecordBatch, bad: dict[int, str] | None = None) -> pa.Buffer:
    """Return rows as bytes, with what is bad about some."""
    said = {_BAD: json.dumps(list((bad or {}).items())).encode()}
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema.with_metadata(said)) as writer:
        writer.write_batch(rows)
    return sink.getvalue()


def unpacked(content: bytes) -> tuple[pa.RecordBatch, dict[int, str]]:
    """Read what `packed` made."""
    with pa.ipc.open_stream(pa.py_buffer(content)) as reader:
        rows = reader.read_next_batch()
    bad: list[Any] = json.loads((rows.schema.metadata or {}).get(_BAD, b"[]"))
    return rows, {int(row): str(reason) for row, reason in bad}
