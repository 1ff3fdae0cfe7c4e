"""Processes of this machine, and the one format of the messages between them.

A message is a JSON object, the head, and bytes, the body, which may be empty. In a stream two
lengths stand before them.
"""

from __future__ import annotations

import json
import os
import struct
from typing import IO, TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    import asyncio

_LENGTHS = struct.Struct("<IQ")  # of the head, of the body

Head = dict[str, Any]
Message = tuple[Head, bytes]


def process_is_running(number: int) -> bool:
    """Tell whether a process of this machine is still there."""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def encode_message(head: Head, body: Any = b"") -> bytes:
    """Return a message as bytes; the body is bytes or another buffer.

    Raises
    ------
    TypeError
        If the head holds what JSON cannot.
    """
    try:
        text = orjson.dumps(head)
    except TypeError:  # such as half a surrogate pair, from a file name that is not UTF-8
        text = json.dumps(head).encode()
    return b"".join((_LENGTHS.pack(len(text), memoryview(body).nbytes), text, body))


def decode_message(content: bytes) -> Message:
    """Read what `encode_message` returned."""
    length, _ = _LENGTHS.unpack_from(content)
    end = _LENGTHS.size + length
    return _parse_head(content[_LENGTHS.size : end]), content[end:]


def write_message(stream: IO[bytes], head: Head, body: Any = b"") -> None:
    """Write one message to a stream."""
    stream.write(encode_message(head, body))
    stream.flush()


def read_message(stream: IO[bytes]) -> Message | None:
    """Read one message from a stream; None if the other side has ended."""
    lengths = stream.read(_LENGTHS.size)
    if len(lengths) < _LENGTHS.size:
        return None
    text, body = map(stream.read, _LENGTHS.unpack(lengths))
    if (len(text), len(body)) != _LENGTHS.unpack(lengths):
        return None
    return _parse_head(text), body


async def receive_message(reader: asyncio.StreamReader) -> Message | None:
    """Read one message on an event loop; None if the other side has ended."""
    try:
        lengths = _LENGTHS.unpack(await reader.readexactly(_LENGTHS.size))
        text, body = [await reader.readexactly(length) for length in lengths]
    except EOFError:
        return None
    return _parse_head(text), body


def _parse_head(text: bytes) -> Head:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text)
