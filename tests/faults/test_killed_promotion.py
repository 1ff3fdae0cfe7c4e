"""A promotion whose process is killed while it moves the stage: what a user sees afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from registry_tools.cli.main import main
from tests.support.registries import EQUAL, GOOD, Place

_KILL_AFTER_THE_ALIAS_MOVED = """
import os, signal, sys
from mlflow import MlflowClient
from registry_tools.cli.main import main

set_alias = MlflowClient.set_registered_model_alias

def set_alias_and_die(*arguments, **options):
    set_alias(*arguments, **options)
    os.kill(os.getpid(), signal.SIGKILL)

MlflowClient.set_registered_model_alias = set_alias_and_die
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_promotion_that_was_killed_leaves_a_working_stage_and_repair_closes_it(
    model: str, local: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["promote", f"{model}/2", "--to", "production", "--margin", "0.9"]
    killed = subprocess.run(
        [sys.executable, "-c", _KILL_AFTER_THE_ALIAS_MOVED, *argv],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert main(["predict", f"{model}@production", "--features", "6.0,2.5,4.5,1.5"]) == 0
    assert capsys.readouterr().out.split()[0] == "versicolor"
    assert main(["repair", model]) == 0
    assert local.holder(model) == EQUAL
    capsys.readouterr()
    assert main(["history", model, "--json"]) == 0
    event = json.loads(capsys.readouterr().out)[0]
    assert (event["version"], event["previous_version"], event["outcome"]) == (EQUAL, GOOD, "applied")
