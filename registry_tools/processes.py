"""Resource limits of processes, calls in processes or tasks of Spark, and the messages between them.

A message has two parts: the head is a JSON object, and the body is bytes, possibly none. In a
stream, the lengths of both parts come first.
"""

from __future__ import annotations

import contextlib
import json
import math
import multiprocessing
import os
import resource
import signal
import struct
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

import orjson

MEBIBYTE = 1 << 20

_LENGTHS = struct.Struct("<IQ")  # of the head, of the body

# Processes are forks of a server that has only imported modules. This process has threads, so forking it
# is not safe.
_FORKS = multiprocessing.get_context("forkserver")
_CALL = "call of a function"  # the name of these processes

Argument = TypeVar("Argument")
Result = TypeVar("Result")
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


@contextlib.contextmanager
def calls_in_processes(
    function: Callable[[Argument], Result], modules: Sequence[str]
) -> Iterator[Callable[[Argument, float], Result]]:
    """Yield a function that calls `function` in processes, as `call_in_process`; they end with the body.

    Parameters
    ----------
    function
        A function with one argument.
    modules
        The modules to import before the first call, so that the calls need no time for it.
    """
    _FORKS.set_forkserver_preload([__name__, *modules])
    first = _FORKS.Process(target=os.getpid)
    first.start()
    first.join()
    try:
        yield lambda argument, seconds: call_in_process(function, argument, seconds)
    finally:
        for child in multiprocessing.active_children():
            if child.name == _CALL:
                child.kill()


def call_in_process(function: Callable[[Argument], Result], argument: Argument, seconds: float) -> Result:
    """Call a function in a new process, and return its result.

    Raises
    ------
    TimeoutError
        If the call took longer than `seconds`; the process is killed.
    ChildProcessError
        If the process ended without a result.
    """
    ours, theirs = _FORKS.Pipe(duplex=False)
    child = _FORKS.Process(target=_send_result, args=(theirs, function, argument), name=_CALL)
    child.start()
    theirs.close()
    try:
        if not ours.poll(None if math.isinf(seconds) else seconds):
            raise TimeoutError(f"took longer than {seconds:g} s")
        result: Result = ours.recv()
        return result
    except EOFError:
        raise ChildProcessError("its process was ended from outside, such as for want of memory") from None
    finally:
        child.kill()
        child.join()


@contextlib.contextmanager
def calls_on_spark(function: Callable[[Argument], Result]) -> Iterator[Callable[[Argument, float], Result]]:
    """Yield a function that calls `function` in a task of Spark with a time limit; tasks end with the body.

    Spark sends the function to the executors once. A call that exceeds its seconds raises `TimeoutError`.
    Any other exception of Spark means that a task failed.
    """
    from pyspark.sql import SparkSession

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # otherwise Spark uses any `python3`
    context = SparkSession.builder.appName("registry-pipeline").getOrCreate().sparkContext
    shared = context.broadcast(function)

    def call(argument: Argument, seconds: float) -> Result:
        def task(each: Argument) -> Result | BaseException:
            try:
                if math.isinf(seconds):
                    return shared.value(each)
                return call_in_process(shared.value, each, seconds)
            except (TimeoutError, ChildProcessError) as error:
                return error

        result: Any = context.parallelize([argument], 1).map(task).collect()[0]
        if isinstance(result, (TimeoutError, ChildProcessError)):
            raise result
        return result

    try:
        yield call
    finally:
        context.cancelAllJobs()


def _send_result(connection: Any, function: Callable[[Any], Any], argument: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends this process
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    connection.send(function(argument))


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


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
