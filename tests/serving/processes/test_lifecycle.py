"""Signals of the processes of a server."""

from __future__ import annotations

import subprocess
import sys

_SCRIPT = """
import os, signal, time
from registry_tools.serving.processes.lifecycle import fork_without_handlers, signal_socket

with signal_socket([signal.SIGTERM]) as receiver:
    for _ in range(60):
        pid = fork_without_handlers([signal.SIGTERM])
        if pid == 0:
            time.sleep(1)
            os._exit(0)
        os.kill(pid, signal.SIGTERM)
        status = os.waitpid(pid, 0)[1]
        assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM
    try:
        raise SystemExit(f"the parent received {receiver.recv(1000)!r}")
    except BlockingIOError:
        pass
"""


def test_a_signal_to_a_process_that_was_just_forked_ends_it_and_does_not_reach_the_parent() -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", _SCRIPT], check=True)
