"""The quickstarts of the README without make: they install the locked packages, train and promote."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.constants import LONG, ROOT
from tests.support.documents import copy_of_the_project, fenced
from tests.support.servers import BIN


@pytest.mark.slow(minutes=2)
@pytest.mark.timeout(900)
@pytest.mark.parametrize("tool", ["uv", pytest.param("pip", marks=LONG)])
def test_a_quickstart_ends_with_a_version_in_production(tool: str, tmp_path: Path) -> None:
    folder = tmp_path / "my clone"
    copy_of_the_project(folder)
    (folder / ".venv").unlink()
    tools = tmp_path / "tools"  # as for a person who has the tool and a Python, and no environment yet
    tools.mkdir()
    (tools / "python3").symlink_to(Path(sys.base_prefix, "bin", "python3"))
    (tools / "uv").symlink_to(shutil.which("uv", path=f"{BIN}:{os.environ['PATH']}") or "missing")
    (block,) = (
        text
        for language, text in fenced((ROOT / "README.md").read_text())
        if language == "sh" and text.startswith(("uv venv", "python3 -m venv")) and f"\n{tool}" in f"\n{text}"
    )
    unset = ("MLFLOW_", "MAKE", "REGISTRY_TOOLS_", "PYTHON", "VIRTUAL_ENV")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(unset)}
    path = [part for part in os.environ["PATH"].split(os.pathsep) if Path(part) != BIN]
    environment["PATH"] = os.pathsep.join([str(tools), *path])
    done = subprocess.run(
        ["bash", "-euc", block], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("moved   iris production: version none → 1\n")
