"""`python -m pipeline governed` prints commands that lead from a refusal to a promotion."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.cli import main
from tests.support.commands import environment
from tests.support.constants import LONG, ROOT
from tests.support.servers import eventually, free_port


def run(command: str, folder: Path, sign_in: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a shell of a user who has signed in."""
    script = f"{sign_in}\n{command}"
    # By default, a command gives up after 5 s, which a loaded machine may need for a request.
    variables = {**environment(), "PYTHONPATH": str(ROOT), "MLFLOW_HTTP_REQUEST_TIMEOUT": "60"}
    return subprocess.run(
        ["sh", "-c", script], cwd=folder, env=variables, capture_output=True, text=True, timeout=300
    )


@LONG
@pytest.mark.slow(minutes=1)
def test_the_printed_commands_promote_the_version_and_ctrl_c_ends_the_server(
    tmp_path: Path, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    process = start(
        *(sys.executable, "-m", "pipeline", "governed"),
        *("--folder", tmp_path / "governed", "--port", str(free_port())),
        cwd=tmp_path,
        env={**environment(), "PYTHONPATH": str(ROOT)},
        # The shell that runs the tests may have SIGINT ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    log = tmp_path / "process-0.log"
    eventually(lambda: process.poll() is not None or "then as ana" in log.read_text(), 250)
    assert process.poll() is None, log.read_text()
    lines = [line.strip() for line in log.read_text().splitlines()]
    (sign_in,) = (line for line in lines if line.startswith(". "))
    steps = [line for line in lines if "registry-tools " in line and "console" not in line]
    done = [run(step, tmp_path, sign_in) for step in steps]
    assert [each.returncode for each in done] == [3, 0, 0, 0, 0], [each.stderr for each in done]
    shown = run("registry-tools show iris@production --json", tmp_path, sign_in)
    assert json.loads(shown.stdout)["version"] == 1
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert "Traceback" not in log.read_text()


def test_a_folder_with_other_files_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["governed", "--folder", str(tmp_path), "--port", str(free_port())]) == 1
    assert "has files of something else: choose another folder with --folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
