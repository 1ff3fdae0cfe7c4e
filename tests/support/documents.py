"""Documents: their blocks, the output that they show, and a reader who follows them to the letter."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.constants import ROOT
from tests.support.servers import BIN

# The guides that continue the tutorial, in the order in which each finds what the pages before it left.
CONTINUED = ("copy-between-registries", "sign-models", "promote", "adopt-a-version", "back-up-and-restore")
NUMBER = re.compile(r"(?<![\w.])[+-]?\d+\.\d+(?:e-\d+)?\b")
# Older than everything that they make: `make` must not install into the tests' environment.
INSTALLED_FROM = ("pyproject.toml", *(path.name for path in ROOT.glob("requirements*.lock")))


def plain(text: str) -> str:
    """Replace run ids and times, which differ between runs, and remove spaces at line ends."""
    text = re.sub(r"\b[0-9a-f]{64}\b", "<digest>", text)
    text = re.sub(r"\b[0-9a-f]{32}\b", "<run>", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?", "<time>", text)
    text = re.sub(r"Makefile:\d+", "Makefile", text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def assert_same(printed: str, shown: str, command: str) -> None:
    """Compare word by word; a number with a fraction may differ a little, as it does between processors."""
    printed, shown = plain(printed), plain(shown)
    assert NUMBER.sub("<number>", printed) == NUMBER.sub("<number>", shown), f"$ {command}"
    numbers = [[float(number) for number in NUMBER.findall(text)] for text in (printed, shown)]
    assert numbers[0] == pytest.approx(numbers[1], abs=0.01), f"$ {command}"


def fenced(text: str) -> list[tuple[str, str]]:
    """Return the language and the text of each fenced block of a page, also of one within a list."""
    found = re.findall(r"^( *)```(\w+)\n(.*?)^\1```", text, re.MULTILINE | re.DOTALL)
    return [(language, textwrap.dedent(block)) for _, language, block in found]


def commands(block: str) -> list[tuple[str, str]]:
    """Return each command of a console block with the output shown below it."""
    parts = re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
    return [(command, shown) for command, _, shown in (part.partition("\n") for part in parts)]


def copy_of_the_project(folder: Path) -> None:
    """Copy the files of a clone, without the example store; its environment is the one of the tests."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file() and not name.startswith("mlruns_example/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(sys.prefix)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    subprocess.run(["git", "add", "."], cwd=folder, check=True)


class Reader:
    """A person in a clone of the project, with one shell for all commands."""

    def __init__(self, folder: Path) -> None:
        unset = ("MLFLOW_", "MAKE", "REGISTRY_TOOLS_")
        environment = {k: v for k, v in os.environ.items() if not k.startswith(unset)}
        # As for a person who has not activated the environment yet.
        path = [part for part in os.environ["PATH"].split(os.pathsep) if Path(part) != BIN]
        environment |= {"PYTHONPATH": str(folder), "LOGNAME": "ada", "PATH": os.pathsep.join(path)}
        self.folder = folder
        self._printed = folder.parent / "printed"
        self._shell = subprocess.Popen(
            ["bash"], cwd=folder, env=environment, text=True, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def run(self, command: str) -> str:
        """Run a command in the shell, and return its output and its errors in their order."""
        for name in INSTALLED_FROM:
            os.utime(self.folder / name, (0, 0))
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        # In braces, so that a changed folder or variable stays; the exit code stays for `$?` of the next.
        self._shell.stdin.write(
            f"(exit ${{code:-0}}); {{ {command}\n}} >'{self._printed}' 2>&1 </dev/null\ncode=$?\necho\n"
        )
        self._shell.stdin.flush()
        assert self._shell.stdout.readline(), f"this ended the shell: $ {command}"
        return self._printed.read_text()

    def follow(self, page: str, port: str = "5001") -> int:
        """Save the files and run the commands of a page; compare each output, and return their number.

        A block that begins with the comment `# NAME` is the file NAME. `port` takes the place of 5001.
        """
        followed = 0
        for language, block in fenced(page):
            if language == "console":
                for command, shown in commands(block):
                    assert_same(self.run(command.replace("5001", port)), shown, command)
                    followed += 1
            elif named := re.match(r"# ([\w.]+\.\w+)\n", block):
                (self.folder / named[1]).write_text(block)
        return followed

    def end(self) -> None:
        """End the shell and every process that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._shell.pid, signal.SIGKILL)
        self._shell.communicate()


@contextlib.contextmanager
def reader_in(folder: Path) -> Iterator[Reader]:
    """Copy the project into a folder, and give a reader a shell there."""
    copy_of_the_project(folder)
    reader = Reader(folder)
    try:
        yield reader
    finally:
        reader.end()
