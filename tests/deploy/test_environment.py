"""The lock files, pyproject.toml and conda.yaml agree with each other and with the installed packages."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from tests.support.commands import environment
from tests.support.constants import LONG, ROOT
from tests.support.lock_files import pins
from tests.support.servers import BIN

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LOCKS = ("requirements.lock", "requirements-test.lock", "requirements-spark.lock")
DOCS_LOCK = "requirements-docs.lock"  # only the site's own packages; they share pins with the first


def applying(lock: str) -> dict[str, str]:
    """Return the pinned version of each package for this Python and platform."""
    return {
        pin.name: str(pin.specifier).removeprefix("==")
        for pin in pins(lock)
        if pin.marker is None or pin.marker.evaluate()
    }


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize("lock", [*LOCKS, DOCS_LOCK])
def test_a_lock_has_a_hash_for_every_pin_and_no_address(lock: str) -> None:
    text = (ROOT / lock).read_text()
    entries = re.split(r"\n(?=\S)", text.partition("\n")[2])
    for entry in entries:
        if entry.strip() and not entry.startswith("#"):
            assert "--hash=sha256:" in entry, entry
    assert "://" not in text
    assert all(str(pin.specifier).startswith("==") for pin in pins(lock))


@pytest.mark.parametrize("lock", LOCKS[1:])
def test_the_other_locks_repeat_the_pins_of_the_first(lock: str) -> None:
    run, other = ({str(pin) for pin in pins(name)} for name in (LOCKS[0], lock))
    # A package that the tests need on all platforms may be needed by a run on one platform only.
    packages = {pin for pin in other if pin.partition(";")[0] in other}
    missing = {pin for pin in run if pin not in other and pin.partition(";")[0] not in other}
    assert {pin for pin in missing if not pin.startswith("setuptools")} == set(), packages


def test_the_lock_of_the_documents_has_no_other_pins_for_the_same_packages() -> None:
    docs, tests = applying(DOCS_LOCK), applying("requirements-test.lock")
    shared = docs.keys() & tests.keys()
    assert {"click", "jinja2", "pyyaml"} <= shared
    assert {name: docs[name] for name in shared} == {name: tests[name] for name in shared}


def test_the_lock_satisfies_pyproject() -> None:
    locked = applying("requirements.lock")
    for text in project()["project"]["dependencies"]:
        wanted = Requirement(text)
        assert wanted.specifier.contains(locked[wanted.name]), text


def test_conda_yaml_installs_the_lock_on_a_supported_python() -> None:
    conda = yaml.safe_load((ROOT / "conda.yaml").read_text())
    (pip,) = (part["pip"] for part in conda["dependencies"] if isinstance(part, dict))
    assert pip == ["-r requirements.lock"]
    assert "python=3.11" in conda["dependencies"]
    assert "pip" in conda["dependencies"]
    digest = hashlib.sha256((ROOT / "requirements.lock").read_bytes()).hexdigest()
    assert f"# lock: {digest[:16]}\n" in (ROOT / "conda.yaml").read_text()
    declared = yaml.safe_load((ROOT / "MLproject").read_text())
    assert declared["conda_env"] == "conda.yaml"
    assert project()["project"]["requires-python"] == ">=3.10"


def test_the_installed_packages_match_the_lock() -> None:
    different = {
        name: (wanted, version(name))
        for name, wanted in applying("requirements-test.lock").items()
        if version(name) != wanted
    }
    assert not different


def test_every_dependency_has_a_reason() -> None:
    block = (ROOT / "pyproject.toml").read_text()
    block = block[: block.index("[tool.")]
    listed = re.findall(r'^  "[\w-]+(?:[><=][^"]*)?",.*$', block, flags=re.MULTILINE)
    assert listed
    assert all("#" in line for line in listed), [line for line in listed if "#" not in line]


def test_make_run_installs_nothing_the_second_time() -> None:
    done = subprocess.run(
        ["make", "--dry-run", "run", f"VENV={sys.prefix}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "pip" not in done.stdout
    assert "mlflow run . --env-manager local" in done.stdout


@pytest.mark.parametrize(("name", "code"), [("", 2), ("NAME=iris", 0), ("NAME=own", 0)])
def test_make_run_on_your_own_table_needs_a_name(name: str, code: int) -> None:
    done = subprocess.run(
        ["make", "--dry-run", "run", f"VENV={sys.prefix}", "ARGS=-P data=t.csv -P target=y", *name.split()],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == code
    assert ("your own table needs a name: make run NAME=MODEL" in done.stderr) == (code == 2)
    assert (f"-P {name.lower()} " in done.stdout) == (code == 0)


def test_make_names_a_python_that_is_too_old(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = subprocess.run(
        ["make", "run", f"VENV={tmp_path / 'venv'}", f"PYTHON={old}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert f"{old} is older than 3.10" in done.stderr


@pytest.mark.slow(minutes=1)
@pytest.mark.parametrize("manager", ["uv", pytest.param("virtualenv", marks=LONG)])
def test_mlflow_makes_its_own_environment_from_conda_yaml(manager: str, store: str, tmp_path: Path) -> None:
    """The first `mlflow run .` installs every locked package from the package index."""
    variables = environment(store) | {"MLFLOW_ENV_ROOT": str(tmp_path / "envs")}
    if manager == "virtualenv":
        variables["PYENV_ROOT"] = str(pyenv_with_this_python(tmp_path / "pyenv"))
    done = subprocess.run(
        [BIN / "mlflow", "run", ROOT, "--env-manager", manager], env=variables, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "iris version 1, stage staging" in done.stdout
    assert list((tmp_path / "envs").iterdir()) != []


def pyenv_with_this_python(root: Path) -> Path:
    """Return a pyenv root in which the Python that MLflow requests is the Python of the tests.

    MLflow wants the newest 3.11 that pyenv knows; pyenv would compile it for minutes.
    """
    if shutil.which("pyenv") is None:
        pytest.skip("MLflow's virtualenv manager needs pyenv, which is not installed")
    if sys.version_info[:2] != (3, 11):
        pytest.skip("conda.yaml names Python 3.11, and the tests run on another")
    known = subprocess.run(["pyenv", "install", "--list"], capture_output=True, text=True)
    newest = [line.strip() for line in known.stdout.splitlines() if line.startswith("  3.11.")][-1]
    (root / "versions").mkdir(parents=True)
    (root / "versions" / newest).symlink_to(sys.base_prefix)
    return root
