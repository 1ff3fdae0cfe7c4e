"""Install the locked npm packages of a test."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.support.browser import REQUIRED


def npm_packages(locked: Path, installed: Path) -> Path:
    """Install the packages of a lock file once, and return their folder `node_modules`.

    Without npm the test is skipped, or fails in CI.

    Parameters
    ----------
    locked
        The folder with `package.json` and `package-lock.json`.
    installed
        The folder for the packages. Node finds them from its subfolders.
    """
    if shutil.which("npm") is None or shutil.which("node") is None:
        missing = "there is no npm on the PATH: apt-get install nodejs npm"
        if os.environ.get(REQUIRED):
            pytest.fail(f"{REQUIRED} is set, but {missing}", pytrace=False)
        pytest.skip(missing)
    modules = installed / "node_modules"
    if not modules.exists():
        installed.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=installed) as folder:
            for name in ("package.json", "package-lock.json"):
                shutil.copy(locked / name, folder)
            command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            subprocess.run(command, cwd=folder, check=True, capture_output=True)
            try:
                Path(folder, "node_modules").rename(modules)
            except OSError:
                if not modules.exists():  # else another worker has installed the packages at the same time
                    raise
    return modules
