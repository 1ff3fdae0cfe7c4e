"""Resource limits of processes, and the format of the messages between them.

A message has two parts: the head is a JSON object, and the body is bytes, possibly none. In a
stream, the lengths of both parts come first.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import orjson

MEBIBYTE = 1 << 20

_LENGTHS = struct.Struct("<IQ")  # of the head, of the body

Head = dict[str, Any]
Message = tuple[Head, bytes]


def process_is_running(number: int) -> bool:
    """Return whether a process of this machine is running."""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to another user
        return True
    return True


@dataclass(frozen=True)
class ResourceLimits:
    """The memory and the processor time that a process may take to load and try a model."""

    memory: int = 4096 * MEBIBYTE  # bytes, in addition to those that the process already uses
    cpu_seconds: int = 60

    @property
    def seconds(self) -> float:
        """The limit of elapsed seconds, which also ends a model that only waits."""
        return 2.0 * self.cpu_seconds

    def apply(self) -> None:
        """Apply the limits to this process; a signal kills it when its time is over."""
        used = _data_bytes() + self.memory
        # Not RLIMIT_AS: BLAS and Arrow reserve addresses that they never use.
        for limit, value in ((resource.RLIMIT_DATA, used), (resource.RLIMIT_CPU, self.cpu_seconds)):
            most = resource.getrlimit(limit)[1]
            value = value if most == resource.RLIM_INFINITY else min(value, most)
            resource.setrlimit(limit, (value, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, self.seconds)


def _data_bytes() -> int:
    """Return the private writable memory of this process, which RLIMIT_DATA counts."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmData:")[2].split()[0]) << 10
    except (OSError, IndexError, ValueError):  # not Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def describe_exit(code: int) -> str:
    """Return how a process ended, such as `SIGSEGV` or `exit code 1`; a negative code is a signal."""
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


def encode_message(head: Head, body: Any = b"") -> bytes:
    """Return a message as bytes; the body is bytes or another buffer.

    Raises
    ------
    TypeError
        If the head cannot be written as JSON.
    """
    try:
        text = orjson.dumps(head)
    except TypeError:  # such as a lone surrogate, from a file name that is not UTF-8
        text = json.dumps(head).encode()
    return b"".join((_LENGTHS.pack(len(text), memoryview(body).nbytes), text, body))


def decode_message(content: bytes) -> Message:
    """Return the head and the body of a message that `encode_message` returned."""
    length, _ = _LENGTHS.unpack_from(content)
    end = _LENGTHS.size + length
    return _parse_head(content[_LENGTHS.size : end]), content[end:]


def write_message(stream: IO[bytes], head: Head, body: Any = b"") -> None:
    """Write one message to a stream."""
    stream.write(encode_message(head, body))
    stream.flush()


def read_message(stream: IO[bytes]) -> Message | None:
    """Read one message from a stream; None if the other side has closed it."""
    lengths = stream.read(_LENGTHS.size)
    if len(lengths) < _LENGTHS.size:
        return None
    text, body = map(stream.read, _LENGTHS.unpack(lengths))
    if (len(text), len(body)) != _LENGTHS.unpack(lengths):
        return None
    return _parse_head(text), body


def _parse_head(text: bytes) -> Head:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text)
