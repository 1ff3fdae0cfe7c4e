"""Helpers for real servers: free ports, waiting until a server is up, ending it, and its metrics."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

BIN = Path(sys.prefix, "bin")


# Outgoing connections use higher ports than these. A test process reserves port N by a lock on byte N of
# this file, so that no other test process starts a server on the port.
_PORTS = iter(random.Random(os.getpid()).sample(range(20_000, 30_000), 10_000))
_PORT_LOCKS = Path(tempfile.gettempdir(), f"test-ports-{os.getuid()}").open("wb")  # noqa: SIM115


def free_port() -> int:
    """Return a free port, and reserve it for this test process."""
    for port in _PORTS:
        with contextlib.suppress(OSError), socket.socket() as probe:
            fcntl.lockf(_PORT_LOCKS, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port from 20000 to 29999 is free")


def wait_until_up(url: str, process: subprocess.Popen[bytes], seconds: float = 100) -> None:
    """Wait until a server answers 200; fail if it ends or the time is over."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the server ended with {process.returncode}"
        try:
            with urllib.request.urlopen(url, timeout=30):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
    raise AssertionError(f"{url} did not answer within {seconds} s")


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process that a test started, together with its child processes."""
    try:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=120)
    except ProcessLookupError:
        process.wait(timeout=120)


@contextlib.contextmanager
def example(log: Path) -> Iterator[str]:
    """Open the example store as `make ui` does, and yield its address."""
    port = free_port()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline", "show-example", "--port", str(port)],
            cwd=Path(__file__).parents[2],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until_up(f"http://127.0.0.1:{port}/health", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        end_group(process)


def eventually(check: Callable[[], bool], seconds: float = 120) -> None:
    """Wait until a check returns true; fail if the time is over."""
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, f"the check did not become true within {seconds} s"
        time.sleep(0.05)


def metric(client: httpx.Client, name: str, **labels: str) -> float:
    """Return a metric of a server, summed over all series with these labels; fail if there is none."""
    found = [
        sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    assert found, f"there is no {name} with {labels}"
    return sum(found)


def memory(pid: int) -> int:
    """Return the resident bytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
