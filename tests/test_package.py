"""The wheel and the source distribution, used without the repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.support.constants import IRIS_ROW, ROOT

_BUILD = """
import sys
from setuptools import build_meta

folder = sys.argv[1]  # setuptools replaces the arguments
build_meta.build_wheel(folder)
build_meta.build_sdist(folder)
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a wheel and a source distribution."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("pipeline", "registry_tools"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "-c", _BUILD, folder], cwd=source, check=True)
    return folder


@pytest.mark.slow
def test_the_installed_wheel_works_without_the_repository(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    site = tmp_path / "site"
    install = ["-m", "pip", "install", "-qq", "--no-deps", "--no-index", "--target", site, wheel]
    subprocess.run([sys.executable, *install], check=True)
    work = tmp_path / "work"
    work.mkdir()
    variables = os.environ | {"PYTHONPATH": str(site), "MLFLOW_TRACKING_URI": f"sqlite:///{work}/mlflow.db"}

    def run(*command: str | Path) -> str:
        process = subprocess.run(
            [sys.executable, *command], cwd=work, env=variables, capture_output=True, text=True, check=False
        )
        assert process.returncode == 0, process.stderr
        return process.stdout

    assert run("-c", "import registry_tools; print(registry_tools.__file__)").startswith(str(site))
    assert "accuracy" in run("-m", "pipeline", "train", "--plots", "false")
    row = ",".join(map(str, IRIS_ROW))
    assert "versicolor" in run(site / "bin" / "registry-tools", "predict", "iris/1", "--features", row)
    (version,) = re.findall(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version in run(site / "bin" / "registry-tools", "--version")
    assert version == run("-c", "import registry_tools; print(registry_tools.__version__)").strip()


@pytest.mark.slow
def test_both_distributions_hold_the_licence_and_the_types(built: Path) -> None:
    (wheel,), (source,) = built.glob("*.whl"), built.glob("*.tar.gz")
    listed = subprocess.check_output([sys.executable, "-m", "zipfile", "--list", wheel], text=True)
    assert "registry_tools/py.typed" in listed
    assert "registry_tools/serving/rest/openapi.json" in listed
    assert "licenses/LICENSE" in listed
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "registry_tools/py.typed", "registry_tools/reports/layout.html"} <= names


def test_the_newest_section_of_the_changelog_is_the_version() -> None:
    sections = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    (version,) = re.findall(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert next(section for section in sections if section != "Unreleased") == version
