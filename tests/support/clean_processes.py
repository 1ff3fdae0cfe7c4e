"""Fork the processes that predict for gates and evidence, instead of starting Python for each.

A promotion predicts in a new Python process, which imports scikit-learn and MLflow for two to four seconds.
The tests start hundreds of them. Here, one process has imported the modules, and forks itself for each
call. The commands that tests run as processes start Python as they do for a user.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from registry_tools.evaluation import isolated_predict


class _Forks:
    """The process that forks, which is started at the first call."""

    def __init__(self, folder: Path) -> None:
        self.address = str(folder / "socket")
        self.process: subprocess.Popen[bytes] | None = None
        self.lock = threading.Lock()  # tests promote in several threads

    def run(self, command: list[str], *, timeout: float, **options: Any) -> Any:
        """Do as `subprocess.run` does; a call with a time limit of its own starts Python."""
        if timeout < isolated_predict._SECONDS or command[1:3] != ["-m", isolated_predict.__name__]:
            return subprocess.run(command, timeout=timeout, **options)
        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as connection:
            files = {name: str(Path(folder, name)) for name in ("stdin", "stderr")}
            Path(files["stdin"]).write_bytes(options["input"])
            call = {"arguments": command[3:], "cwd": options["cwd"], "env": options["env"], **files}
            with self.lock:
                self._connect(connection)
            connection.sendall(json.dumps(call).encode() + b"\n")
            code = int(connection.makefile().readline())
            return SimpleNamespace(returncode=code, stderr=Path(files["stderr"]).read_bytes())

    def _connect(self, connection: socket.socket) -> None:
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, "-m", __name__, self.address], stdout=subprocess.PIPE, cwd=Path.cwd().anchor,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            )  # fmt: skip
            assert self.process.stdout is not None
            assert self.process.stdout.readline() == b"ready\n"
        connection.connect(self.address)


@pytest.fixture(scope="session", autouse=True)
def _clean_processes_are_forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    if not hasattr(os, "fork"):
        yield
        return
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        forks = _Forks(Path(folder))
        replaced = SimpleNamespace(run=forks.run, TimeoutExpired=subprocess.TimeoutExpired)
        patch.setattr(isolated_predict, "subprocess", replaced)
        yield
        if forks.process is not None:
            forks.process.kill()
            forks.process.wait()
            assert forks.process.stdout is not None
            forks.process.stdout.close()


def _serve(address: str) -> None:
    """Fork for each connection, in a process that has only imported modules and has no threads."""
    import mlflow.sklearn  # noqa: F401 - what loading a model imports
    import skops.io  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for these processes
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                call = json.loads(connection.makefile().readline())
                child = os.fork()
                if child == 0:
                    _run(call)
                _, status = os.waitpid(child, 0)
                connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
                os._exit(0)
            connection.close()


def _run(call: dict[str, Any]) -> None:
    for number, (name, flags) in {0: ("stdin", os.O_RDONLY), 2: ("stderr", os.O_WRONLY | os.O_CREAT)}.items():
        os.dup2(os.open(call[name], flags), number)
    os.chdir(call["cwd"])
    os.environ.clear()
    os.environ.update(call["env"])
    sys.path[:0] = call["env"]["PYTHONPATH"].split(os.pathsep)
    code = 0
    try:
        isolated_predict.main(*call["arguments"])
    except BaseException:  # noqa: BLE001 - the caller reads it from the file of stderr
        traceback.print_exc()
        code = 1
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
