"""The tutorial, followed to the letter in a clone whose folder has a space in its name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.constants import ROOT
from tests.support.documents import assert_same, commands, fenced, reader_in
from tests.support.servers import free_port

PAGE = (ROOT / "docs" / "tutorial.md").read_text()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(shutil.which("curl") is None, reason="the tutorial sends requests with curl")
def test_every_step_of_the_tutorial_prints_the_output_that_it_shows(tmp_path: Path) -> None:
    port = str(free_port())
    with reader_in(tmp_path / "my clone") as reader:
        shown_commands = [
            shown for language, block in fenced(PAGE) if language == "console" for shown in commands(block)
        ]
        assert len(shown_commands) > 20
        for command, shown in shown_commands:
            command = command.replace("5001", port)
            assert_same(reader.run(command), shown, command)
        assert "rollback" in reader.run("registry-tools history iris")
