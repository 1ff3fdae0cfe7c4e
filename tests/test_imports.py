"""Importing the packages is free: nothing heavy is loaded, no file is made."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("module", ["registry_tools", "registry_tools.cli.main", "pipeline.cli"])
def test_importing_loads_no_heavy_package_and_makes_no_file(module: str, tmp_path: Path) -> None:
    code = (
        f"import sys, {module}\n"
        "heavy = {'mlflow', 'sklearn', 'pandas', 'numpy', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert list(tmp_path.iterdir()) == []
