"""The code without the parts of Python that Windows lacks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import environment
from tests.support.constants import IRIS_ROW, LONG, ROOT
from tests.support.servers import BIN
from tests.support.serving import Serve

HIDDEN = ROOT / "tests" / "support" / "no_posix"
SERVER = ("registry_tools/serving/", "registry_tools/inference/trial.py")
CHECKS_FIRST = {"registry_tools/processes.py", "registry_tools/files/temp_files.py"}


def without_posix(folder: Path, *command: str | Path, code: int = 0) -> str:
    """Run a command without these parts; return its output, or its error if it must fail."""
    variables = environment(f"sqlite:///{folder}/mlflow.db")
    variables["PYTHONPATH"] = f"{HIDDEN}{os.pathsep}{ROOT}"
    done = subprocess.run(command, env=variables, cwd=folder, capture_output=True, text=True, timeout=240)
    assert done.returncode == code, done.stderr
    return done.stderr if code else done.stdout


def test_the_server_says_that_it_needs_another_system(tmp_path: Path) -> None:
    error = without_posix(tmp_path, BIN / "registry-tools", "serve", "iris@production", code=1)
    assert error.startswith(
        "registry-tools: error: the server needs Linux or macOS; on Windows, run it in WSL"
    )


def test_the_registry_opens_without_posix(tmp_path: Path) -> None:
    error = without_posix(tmp_path, BIN / "registry-tools", "list", code=1)
    assert error.startswith("registry-tools: error: no registry at")


@pytest.mark.slow
def test_the_server_works_without_uvloop(
    serve: Serve, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "uvloop.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    client = serve(f"{model}@production")
    response = client.post("/predict", json={"features": IRIS_ROW})
    assert response.json()["prediction"] == "versicolor"
    process: subprocess.Popen[bytes] = client.process  # type: ignore[attr-defined]
    libraries = Path(f"/proc/{process.pid}/maps").read_text() if sys.platform == "linux" else ""
    assert "uvloop" not in libraries
    process.terminate()
    assert process.wait(timeout=100) == 0


@LONG
@pytest.mark.slow
def test_a_model_is_trained_tuned_promoted_and_used_without_posix(tmp_path: Path) -> None:
    python, tools = Path(sys.executable), BIN / "registry-tools"
    assert "iris version 1" in without_posix(tmp_path, python, "-m", "pipeline", "train", "--plots", "false")
    moved = without_posix(tmp_path, tools, "promote", "iris@staging", "--to", "production")
    assert "moved   iris production: version none → 1" in moved
    row = ",".join(map(str, IRIS_ROW))
    assert "versicolor" in without_posix(tmp_path, tools, "predict", "iris@production", "--features", row)
    (tmp_path / "rows.csv").write_text(
        "sepal length (cm),sepal width (cm),petal length (cm),petal width (cm)\n" + f"{row}\n" * 5
    )
    score = [
        tools,
        "score",
        "iris@production",
        "--input",
        "rows.csv",
        "--output",
        "out.csv",
        "--workers",
        "2",
    ]
    without_posix(tmp_path, *score)
    assert (tmp_path / "out.csv").read_text().count("versicolor") == 5
    sweep = [python, "-m", "pipeline", "sweep", "--n-trials", "3", "--n-jobs", "2", "--name", "swept"]
    assert "swept version 1" in without_posix(tmp_path, *sweep)


@LONG
@pytest.mark.slow
def test_only_the_server_names_what_windows_lacks(tmp_path: Path) -> None:
    """The type checker knows the standard library of each platform."""
    command = [BIN / "mypy", "--platform", "win32", "--cache-dir", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    found = set(re.findall(r"^(\S+\.py):", done.stdout, re.MULTILINE))
    assert any(name.startswith(SERVER) for name in found), done.stdout + done.stderr
    assert {name for name in found if not name.startswith(SERVER)} <= CHECKS_FIRST, done.stdout
