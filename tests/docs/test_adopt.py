"""The page on making the project one's own, followed to the letter in a copy of this tree."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.constants import ROOT
from tests.support.documents import plain
from tests.support.servers import BIN

PAGE = (ROOT / "docs" / "adopt.md").read_text()
FIGURE = re.compile(r"(?<![\w.])[+-]?\d+\.\d+(?:e-\d+)?\b")
INSTALLED_FROM = ("pyproject.toml", "requirements.lock", "requirements-test.lock")


class Reader:
    """Somebody in a copy of the project, with a shell that remembers what was exported."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        unset = ("MLFLOW_", "MAKE", "REGISTRY_TOOLS_")
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(unset)}
        self.environment |= {"PYTHONPATH": str(folder), "LOGNAME": "ada"}

    def copy(self) -> None:
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard", "-z"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file() and not name.startswith("mlruns_example/"):
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, self.folder / name)
        (self.folder / ".venv").symlink_to(sys.prefix)
        self.run("git init -q && git add .")

    def run(self, command: str) -> str:
        for name in INSTALLED_FROM:  # `make` must not install into the tests' environment
            os.utime(self.folder / name, (0, 0))
        if command.startswith("export "):
            name, _, value = shlex.split(command)[1].partition("=")
            self.environment[name] = value
            return ""
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder, env=self.environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300,
        )  # fmt: skip
        return done.stdout


def assert_same(printed: str, shown: str, command: str) -> None:
    """Compare word by word; a figure may differ a little, as it does between processors."""
    printed, shown = plain(printed), plain(shown)
    assert FIGURE.sub("<figure>", printed) == FIGURE.sub("<figure>", shown), f"$ {command}"
    figures = [[float(f) for f in FIGURE.findall(text)] for text in (printed, shown)]
    assert figures[0] == pytest.approx(figures[1], abs=0.01), f"$ {command}"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_steps_of_the_page_work_as_written(tmp_path: Path) -> None:
    if (ROOT / "own.mk").exists() or not (ROOT / ".git").exists():
        pytest.skip("this is a clone that was adopted, or none")
    reader = Reader(tmp_path)
    reader.copy()
    for language, block in re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        if language == "console":
            for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                command, _, shown = part.partition("\n")
                assert_same(reader.run(command), shown, command)
        elif language == "sh" and block.startswith("make check"):
            # What `make` would call, which would first install the project under its new name.
            checks = ("ruff format --check .", "ruff check .", "mypy", "lint-imports --no-cache")
            tests = "tests/test_imports.py tests/pipeline/training/test_train.py"
            tests += " -k 'importing or network'"
            for command in (*checks, f"python -m pytest -n 0 {tests}"):
                printed = reader.run(f"{BIN}/{command} && echo passed")
                assert printed.endswith("passed\n"), printed
        elif language == "sh":
            assert reader.run(block) == ""
        else:
            name = block.partition("\n")[0].removeprefix("# ")
            (tmp_path / name).write_text(block)
    renamed = reader.run("git grep -c tumour-registry | cut -d: -f1").split()
    assert {"MLproject", "conda.yaml", "pyproject.toml"} < set(renamed)
    assert reader.run("git grep registry-pipeline") == ""


def test_numbers_may_differ_a_little_and_words_may_not() -> None:
    assert_same("accuracy  0.955 on 30 rows", "accuracy  0.96 on 30 rows", "x")
    for other in ("accuracy  0.85 on 30 rows", "accuracy  0.95 on 31 rows", "0.95 on 30 rows"):
        with pytest.raises(AssertionError):
            assert_same(other, "accuracy  0.95 on 30 rows", "x")
