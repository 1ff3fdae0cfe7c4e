"""The targets of the Makefile: servers end with make, and warnings and thread dumps are not printed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from registry_tools.mlflow_store import stages
from tests.support.commands import environment
from tests.support.constants import LONG, ROOT
from tests.support.registries import Place
from tests.support.servers import eventually, free_port, wait_until_up


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "path"),
    [("serve", "ping"), ("ui", "health"), ("console", "health"), ("demo", ""), ("governed", "health")],
)
def test_a_signal_to_make_ends_the_server_that_it_started(
    target: str, path: str, model: str, local: Place, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    stages.move_alias(local.client, model, "production", 1)
    port = free_port()
    process = start(
        "make",
        *(f"VENV={sys.prefix}", f"--old-file={Path(sys.prefix, '.run')}"),
        *(target, f"PORT={port}", f"NAME={model}", *([f"STORE={local.uri}"] if target == "serve" else [])),
        cwd=ROOT,
        env=environment(),
    )
    wait_until_up(f"http://127.0.0.1:{port}/{path}", process)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(timeout=120) != 0

    def all_ended() -> bool:
        session = ["ps", "-o", "pid=", "-s", str(process.pid)]
        return not subprocess.run(session, capture_output=True, text=True).stdout.strip()

    eventually(all_ended)


@pytest.mark.slow
def test_the_ui_of_a_store_prints_no_warnings_and_ends_at_ctrl_c_without_tracebacks(
    store: str, tmp_path: Path, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    port = free_port()
    process = start(
        "make",
        *(f"VENV={sys.prefix}", f"--old-file={Path(sys.prefix, '.run')}", "ui", f"STORE={store}"),
        f"PORT={port}",
        cwd=ROOT,
        env=environment(),
        # The shell that runs the tests may have SIGINT ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    wait_until_up(f"http://127.0.0.1:{port}/health", process)  # a worker has imported MLflow's application
    os.killpg(process.pid, signal.SIGINT)
    process.wait(timeout=120)
    log = (tmp_path / "process-0.log").read_text()
    assert "Application startup complete" in log
    assert "deprecated" not in log
    assert "Traceback" not in log


@LONG
@pytest.mark.slow
def test_a_test_that_times_out_prints_its_own_traceback_only(tmp_path: Path) -> None:
    (tmp_path / "test_hanging.py").write_text(
        "import threading, time\n"
        "def test_that_hangs():\n"
        "    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        "    time.sleep(60)\n"
    )
    options = ("-n1", "-p", "tests.conftest", "-c", ROOT / "pyproject.toml", "--timeout", "1")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, tmp_path], cwd=ROOT, capture_output=True, text=True
    )
    assert "Failed: Timeout" in done.stdout
    assert "Stack of" not in done.stdout
    assert "ResourceWarning" not in done.stdout + done.stderr
