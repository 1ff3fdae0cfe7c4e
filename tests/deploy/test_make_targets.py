"""The targets of the Makefile that serve: they end with make."""

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
from tests.support.constants import ROOT
from tests.support.registries import Place
from tests.support.servers import eventually, free_port, wait_until_up


@pytest.mark.slow
@pytest.mark.parametrize(("target", "path"), [("serve", "ping"), ("ui", "health"), ("demo", "")])
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
    assert process.wait(timeout=60) != 0

    def all_ended() -> bool:
        session = ["ps", "-o", "pid=", "-s", str(process.pid)]
        return not subprocess.run(session, capture_output=True, text=True).stdout.strip()

    eventually(all_ended)
