"""Run our command lines in this process, or prepare the environment to run them in a subprocess."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from registry_tools.cli.main import main
from tests.support.servers import BIN


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> Any:
    """Run a command that must succeed and return its JSON."""
    assert main([*argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def error_of(capsys: pytest.CaptureFixture[str], *argv: str, code: int = 1) -> str:
    """Run a command that must fail and return its one line on stderr."""
    assert main(argv) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1, err
    assert err.startswith("registry-tools: error: ")
    return err


def environment(uri: str | None = None) -> dict[str, str]:
    """Return the variables of a shell after `. .venv/bin/activate`, without MLflow's own variables."""
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "MAKE"))}
    variables["PATH"] = f"{BIN}{os.pathsep}{variables['PATH']}"
    variables["MLFLOW_DISABLE_TELEMETRY"] = "true"
    if uri is not None:
        variables["MLFLOW_TRACKING_URI"] = uri
    return variables
