"""The processes in which the console runs commands; a script in place of Python decides how each ends."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from registry_tools.console import commands
from registry_tools.console.problem import Problem

Script = Callable[[str], None]


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    """Return a function that sets the shell script which each command runs."""
    path = tmp_path / "python"

    def write(text: str) -> None:
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    monkeypatch.setattr(sys, "executable", str(path))
    return write


@pytest.mark.parametrize("name", ["http_proxy", "https_proxy", "no_proxy", "HTTPS_PROXY"])
def test_a_command_uses_the_proxy_of_the_console(
    script: Script, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "http://proxy.example:3128")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    script(f"""echo "[\\"${name}\\", \\"$AWS_SECRET_ACCESS_KEY\\"]" """)
    assert commands.run(None, "sqlite://", "compare") == ["http://proxy.example:3128", ""]


def test_a_command_that_fails_with_cut_output_is_reported_by_its_error_line(script: Script) -> None:
    script("""echo '{"version": '; echo 'registry-tools: error: the disk is full' >&2; exit 1""")
    with pytest.raises(Problem, match=r"^the disk is full$") as caught:
        commands.run(None, "sqlite://", "promote")
    assert caught.value.status == 409


def test_comparisons_do_not_hold_up_a_rollback(script: Script, tmp_path: Path) -> None:
    started, end = tmp_path / "started", tmp_path / "end"
    # The first argument of a command comes after `-m registry_tools --json --tracking-uri ADDRESS`.
    script(
        f"""if [ "$6" = compare ]; then echo x >> {started}; while [ ! -e {end} ]; do sleep 0.05; done; fi
        echo '{{}}'"""
    )
    found: list[object] = []
    threads = [
        threading.Thread(target=lambda: found.append(commands.run(None, "sqlite://", "compare")))
        for _ in range(2)
    ]
    try:
        for thread in threads:
            thread.start()
        while not (started.exists() and len(started.read_text().split()) == 2):
            threading.Event().wait(0.02)
        assert commands.run(None, "sqlite://", "rollback") == {}
        with pytest.raises(Problem, match="2 users of this console run compare now"):
            commands.run(None, "sqlite://", "compare")
    finally:
        end.touch()
        for thread in threads:
            thread.join()
    assert found == [{}, {}]
