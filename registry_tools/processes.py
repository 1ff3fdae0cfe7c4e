"""Processes: their resource limits, and calls in processes or in tasks of Spark."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

MEBIBYTE = 1 << 20

# Processes are forks of a server that has only imported modules. This process has threads, so forking it
# is not safe. Windows has no forks: there, each process starts Python.
_FORKS: Any = multiprocessing.get_context(
    "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
)
_CALL = "call of a function"  # the name of these processes

Argument = TypeVar("Argument")
Result = TypeVar("Result")


def process_is_running(number: int) -> bool:
    """Return whether a process of this machine is running."""
    if sys.platform == "win32":  # `os.kill` would end the process
        return _is_running_on_windows(number)
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to another user
        return True
    return True


def _is_running_on_windows(number: int) -> bool:
    import ctypes

    kernel = ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined]
    process = kernel.OpenProcess(0x100000, False, number)  # SYNCHRONIZE: the right to wait for it
    if not process:
        return ctypes.get_last_error() == 5  # type: ignore[attr-defined] # access denied: another user's
    running = kernel.WaitForSingleObject(process, 0) == 0x102  # WAIT_TIMEOUT
    kernel.CloseHandle(process)
    return running


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
        """Apply the limits to this process; a signal kills it when its time is over.

        On Windows, which has no such limits, the process runs without them.
        """
        if resource is None:
            return
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
    except (OSError, IndexError, ValueError):  # macOS
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@contextlib.contextmanager
def signals_blocked(numbers: Collection[signal.Signals]) -> Iterator[None]:
    """Block signals during the body, also in the processes that it starts; on Windows, do nothing."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


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
    exit_with_parent()
    connection.send(function(argument))


def exit_with_parent() -> None:
    """End this process when its parent ends, even if the parent is killed; it is one of multiprocessing."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
