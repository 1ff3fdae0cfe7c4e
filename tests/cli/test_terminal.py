"""Commands on a terminal and in a pipe: colours, tables, progress, completion, order of options."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shutil
import struct
import subprocess
import termios
from pathlib import Path
from typing import Any

import pytest

from registry_tools.cli.main import cli, main
from tests.support.commands import environment, error_of
from tests.support.servers import BIN
from tests.support.stores import Trained

COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-9]m")
CODES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def on_terminal(*argv: str, uri: str, columns: int = 80, **settings: str) -> str:
    """Run a command on a pseudo-terminal, and return all that it prints there."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    given = environment(uri) | {"TERM": "xterm-256color", "COLUMNS": str(columns)} | settings
    child = subprocess.Popen([BIN / "registry-tools", *argv], stdin=its, stdout=its, stderr=its, env=given)
    os.close(its)
    printed = b""
    while True:
        try:
            part = os.read(ours, 1 << 16)
        except OSError:  # Linux ends the reading so when the command has closed the terminal
            part = b""
        if not part:
            break
        printed += part
    os.close(ours)
    assert child.wait(timeout=120) == 0
    return printed.decode()


def in_a_pipe(*argv: str, uri: str) -> str:
    command = [BIN / "registry-tools", *argv]
    done = subprocess.run(command, env=environment(uri), capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


def words(text: str) -> list[str]:
    return CODES.sub("", text).split()


@pytest.mark.parametrize(
    ("settings", "coloured"), [({}, True), pytest.param({"NO_COLOR": "1"}, False, marks=pytest.mark.slow)]
)
def test_a_terminal_shows_progress_and_colours_unless_no_color_is_set(
    settings: dict[str, str], coloured: bool, trained: Trained
) -> None:
    printed = on_terminal("list", "iris", uri=trained.uri, columns=200, **settings)
    assert "registry-tools list" in printed
    assert bool(COLOUR.search(printed)) == coloured
    plain = in_a_pipe("list", "iris", uri=trained.uri)
    assert plain.startswith("version  stages   accuracy")
    assert words(printed[printed.rindex("\x1b[2K") :]) == words(plain)


@pytest.mark.slow
def test_a_terminal_shows_gates_in_colour_and_wraps_within_a_column(trained: Trained) -> None:
    printed = on_terminal("verify", "iris@staging", uri=trained.uri, columns=50)
    assert "\x1b[32mpassed" in printed
    lines = CODES.sub("", printed[printed.index("passed") :]).splitlines()
    assert max(map(len, lines)) <= 50
    assert any(line.startswith(" " * 10) for line in lines)


def test_options_of_all_commands_stand_before_or_after_the_command(trained: Trained, capsys: Any) -> None:
    assert main(["list", "--json", "--tracking-uri", trained.uri]) == 0
    after = capsys.readouterr().out
    assert main(["--json", "--tracking-uri", trained.uri, "list"]) == 0
    assert capsys.readouterr().out == after
    assert "no option --json" in error_of(capsys, "--json", "serve", "iris@staging", code=2)


def test_the_help_shows_the_commands_in_the_order_of_their_use(capsys: Any) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    places = [shown.index(f"\n  {name} ") for name in ("list", "predict", "promote", "compare", "completion")]
    assert places == sorted(places)
    assert set(re.findall(r"^  ([a-z]+) {2,}", shown.partition("Commands:")[2], re.M)) == set(cli.commands)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_completes_a_command(shell: str, tmp_path: Path, capsys: Any) -> None:
    assert main(["completion", shell]) == 0
    script = tmp_path / "completion"
    script.write_text(capsys.readouterr().out)
    if shutil.which(shell):
        subprocess.run([shell, "-n", script], check=True)
    if shell == "bash":
        lines = f"source {script}; COMP_WORDS=(registry-tools prom); COMP_CWORD=1"
        call = f"{lines}; _registry_tools_completion {BIN / 'registry-tools'}; echo ${{COMPREPLY[0]}}"
        done = subprocess.run(["bash", "-c", call], capture_output=True, text=True, check=True)
        assert done.stdout == "promote\n"
