"""Text from a registry or a model, as the commands print it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from registry_tools.cli.main import main
from tests.support.constants import LONG
from tests.support.registries import EQUAL, GOOD, Place, crafted

HOSTILE = "\x1b[2Jred\nproduction  iris version 9\x9b1m\u2028\u202e\x07"
_UNSAFE = set(HOSTILE) - set(HOSTILE.encode("ascii", "ignore").decode()) | {"\x1b", "\x07"}


def output(capsys: pytest.CaptureFixture[str], *argv: str, code: int = 0) -> str:
    """Run a command and return its text, which must be safe to print."""
    assert main(argv) == code
    out, err = capsys.readouterr()
    assert _UNSAFE.isdisjoint(out + err)
    return out + err


def rename_classes(_: Path, content: dict[str, Any]) -> None:
    content["metadata"]["target_names"] = ["setosa", HOSTILE, "virginica"]


def test_class_names_print_no_control_characters(local: Place, capsys: pytest.CaptureFixture[str]) -> None:
    ref = crafted(local, rename_classes)
    argv = ["predict", ref, "--features", "6.0,2.5,4.5,1.5"]
    text = output(capsys, *argv, "--proba")
    assert text.startswith(r"\x1b[2Jred\nproduction  iris version 9\x9b1m\u2028\u202e\x07  setosa=0.")
    assert text.count("\n") == 1
    assert json.loads(output(capsys, *argv, "--json"))["prediction"] == HOSTILE
    Path("rows.csv").write_text("a,b,c,d\n6.0,2.5,4.5,1.5\n")
    assert output(capsys, "predict", ref, "--input", "rows.csv", code=1).count("\n") == 1


@pytest.mark.slow
def test_an_error_prints_no_control_characters(local: Place, capsys: pytest.CaptureFixture[str]) -> None:
    ref = crafted(local, rename_classes)
    name = ref.partition("/")[0]
    assert output(capsys, "compare", ref, f"{name}/1").count("\nproduction  iris") == 0
    verbose = output(capsys, "predict", ref, "--features", f"1,2,3,{HOSTILE}", "-v", code=1)
    assert "Traceback" in verbose
    assert verbose.splitlines()[-1].startswith("registry-tools: error: ")


@pytest.mark.slow
def test_tags_description_reason_and_actor_print_no_control_characters(
    local: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    name = local.model(GOOD, EQUAL)
    client = local.client
    client.set_model_version_tag(name, "1", "note", HOSTILE)
    client.update_model_version(name, "1", HOSTILE)
    client.set_tag(str(local.version(name, 1).run_id), "note", HOSTILE)
    argv = ["promote", f"{name}/1", "--to", "production", "--reason", HOSTILE, "--actor", HOSTILE]
    output(capsys, *argv)
    shown = output(capsys, "show", f"{name}/1")
    assert r"tag note" in shown
    assert r"\x1b[2Jred\nproduction" in shown
    history = output(capsys, "history", name)
    assert history.count("\n") == 2
    assert r"\x1b[2Jred\nproduction" in history
    for command in (["show", f"{name}/1"], ["list", name], ["history", name]):
        json.loads(output(capsys, *command, "--json"))


@LONG
@pytest.mark.slow
def test_pages_hold_no_control_characters(local: Place, capsys: pytest.CaptureFixture[str]) -> None:
    ref = crafted(local, rename_classes)
    name = ref.partition("/")[0]
    assert main(["promote", ref, "--to", "production", "--force", "--reason", HOSTILE]) == 0
    assert main(["compare", ref, f"{name}/1", "--html", "compared.html"]) == 0
    assert main(["history", name, "--html", "history.html"]) == 0
    for page in ("compared.html", "history.html"):
        text = Path(page).read_text()
        assert _UNSAFE.isdisjoint(text)
        assert r"\x1b[2Jred" in text
