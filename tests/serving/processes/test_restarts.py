"""A process that cannot be forked, or is never ready, is started again; strangers are ignored."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

_PROGRAM = """
import errno, os, socket, sys, time
from pathlib import Path
from registry_tools.processes import ResourceLimits
from registry_tools.serving.processes import supervisor
from registry_tools.serving.control import ProcessFolder
from registry_tools.serving.settings import Settings

starts = Path(sys.argv[1])

def run(control):
    number = int(starts.read_text()) + 1
    starts.write_text(str(number))
    if number == 1:
        control.send_ready("the first")
        os._exit(1)
    if number == 2:
        time.sleep(1000)  # it is never ready
    stranger = fork()
    if not stranger:
        control.send_ready("a process that the parent did not start")
        os._exit(0)
    os.waitpid(stranger, 0)
    control.send_ready("the last")
    os.kill(os.getppid(), 15)
    time.sleep(1000)

fork, failed = os.fork, []

def fork_later():
    if starts.read_text() == "1" and not failed:
        failed.append(True)
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
    return fork()

os.fork = fork_later
supervisor._START_SECONDS = -58.0  # 2 seconds are left of those to load a version
settings = Settings("iris@production", trial_limits=ResourceLimits(cpu_seconds=0))
with socket.socket() as listening:
    listening.bind(("127.0.0.1", 0))
    folder = ProcessFolder(starts.parent, starts.parent)
    code = supervisor.Supervisor(settings, listening, folder, [supervisor.Child("worker", run)]).run()
sys.exit(code)
"""


def test_a_fork_that_fails_and_a_process_that_is_never_ready_are_repeated(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    starts.write_text("0")
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(starts)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "which this server did not start, is ignored" in done.stderr
    assert starts.read_text() == "3"
    assert "Resource temporarily unavailable" in done.stderr
