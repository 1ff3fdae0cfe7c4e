"""The help of `python -m pipeline`."""

from __future__ import annotations

import re

import pytest

from pipeline.cli import main


def test_the_help_lists_the_commands_in_the_order_of_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    commands = re.findall(r"^  ([a-z-]+)  ", capsys.readouterr().out.partition("Commands:")[2], re.MULTILINE)
    assert commands == ["train", "sweep", "monitor", "make-example", "show-example", "demo", "governed"]


def test_the_help_of_a_parameter_has_its_values_and_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "VALUE is stratified or hash. Default: stratified." in text
