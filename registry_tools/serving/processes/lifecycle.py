"""Functions for the life of a server process: imports, signals, forks, memory, the start message."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import signal
import socket
import sys
from collections.abc import Collection, Coroutine, Iterator
from typing import Any

import joblib

from registry_tools.mlflow_store.client import import_store
from registry_tools.processes import signals_blocked
from registry_tools.serving.settings import Settings

try:
    import uvloop
except ImportError:  # not every platform has it
    uvloop = None  # type: ignore[assignment]

_PR_SET_PDEATHSIG = 1


def run_loop(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine until it returns or is cancelled, on uvloop if it is installed."""
    with contextlib.suppress(asyncio.CancelledError):
        (asyncio if uvloop is None else uvloop).run(work)


def preload(tracking_uri: str | None) -> None:
    """Import all modules before the fork, so that the processes share their memory."""
    import skops.io  # noqa: F401

    import_store(tracking_uri)
    # Make estimators with `n_jobs` use threads: new processes would escape the limits of a trial.
    joblib.register_parallel_backend("threading", joblib.parallel.ThreadingBackend, make_default=True)


@contextlib.contextmanager
def signal_socket(numbers: Collection[signal.Signals]) -> Iterator[socket.socket]:
    """Yield a socket that receives the number of each signal as one byte."""
    receiver, sender = socket.socketpair()
    with receiver, sender:
        receiver.setblocking(False)
        sender.setblocking(False)
        before = {number: signal.signal(number, lambda *_: None) for number in numbers}
        signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
        try:
            yield receiver
        finally:
            signal.set_wakeup_fd(-1)
            for number, handler in before.items():
                signal.signal(number, handler)


def fork_without_handlers(numbers: Collection[signal.Signals]) -> int:
    """Fork; the child has none of the handlers of these signals.

    It ignores Ctrl-C, which the parent handles, and SIGHUP and SIGUSR1, until it follows a stage. The other
    signals have their default action, and none of them is lost.

    Returns
    -------
    int
        The process id of the child; 0 in the child.
    """
    # Block the signals until the child has no handlers, which would pass a signal to the parent instead.
    with signals_blocked(numbers):
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            for number in numbers:
                is_ignored = number in {signal.SIGINT, signal.SIGHUP, signal.SIGUSR1}
                signal.signal(number, signal.SIG_IGN if is_ignored else signal.SIG_DFL)
        return pid


def end_with_parent(parent: int) -> None:
    """Make the system kill this process when its parent ends; Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def settle_memory() -> None:
    """Exclude loaded objects from garbage collection, and collect less often.

    Requests leave no garbage, so a collection would only delay other requests.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    gc.enable()


def announce(settings: Settings, listening: socket.socket, what: str) -> None:
    """Write the served version and the address of the server to stderr."""
    scheme = "https" if settings.ssl_certfile else "http"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    where = f"{scheme}://{host}:{listening.getsockname()[1]}"
    grpc = f", gRPC on port {settings.grpc_port}" if settings.grpc_port else ""
    sys.stderr.write(f"serving {settings.ref} ({what}) on {where}{grpc}; see /docs for requests\n")
    sys.stderr.flush()
