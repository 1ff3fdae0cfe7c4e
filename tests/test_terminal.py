"""Text from others, made safe to print."""

from __future__ import annotations

import json
import logging
import re
import sys
import unicodedata

import pytest

from registry_tools.terminal import log_times, log_to_stderr, printable, printable_json, printable_lines

EVERY_CHARACTER = "".join(map(chr, range(sys.maxunicode + 1)))


def test_no_character_that_a_terminal_acts_on_is_printed() -> None:
    left = set(printable(EVERY_CHARACTER))
    assert {unicodedata.category(c) for c in left}.isdisjoint({"Cc", "Cs", "Zl", "Zp"})
    assert not [c for c in left if unicodedata.bidirectional(c) in {"LRE", "RLE", "LRO", "RLO", "PDF"}]
    assert not [c for c in left if unicodedata.bidirectional(c) in {"LRI", "RLI", "FSI", "PDI"}]


@pytest.mark.parametrize("text", ["versicolor", "Köln → 東京", "می\u200cروم", "👩\u200d🔬", r"C:\x1b"])
def test_other_text_stays_as_it_is(text: str) -> None:
    assert printable(text) == printable_lines(text) == printable_json(text) == text


def test_an_unsafe_character_is_shown_as_python_writes_it() -> None:
    assert printable("a\x1b[2Jb\nc\u202ed\x9be") == r"a\x1b[2Jb\nc\u202ed\x9be"
    assert printable_lines("a\r\nb\tc") == "a\nb\\tc"


def test_json_keeps_its_value() -> None:
    # In this order no two halves make one character.
    value = {"k\u2028\U000e0041": [EVERY_CHARACTER[::-1]]}
    text = printable_json(json.dumps(value, indent=2, ensure_ascii=False))
    assert json.loads(text) == value
    assert printable_lines(text) == text


def test_a_log_record_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers.clear()
    try:
        log_to_stderr(logging.WARNING, "%(levelname)s: %(message)s")
        try:
            raise ValueError("\x1b[1A")
        except ValueError:
            logging.getLogger("x").warning("no such class: %s", "a\nERROR: forged", exc_info=True)
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    err = capsys.readouterr().err
    assert err.startswith("WARNING: no such class: a\\nERROR: forged\nTraceback")
    assert err.endswith("ValueError: \\x1b[1A\n")


def test_a_log_line_of_a_server_begins_with_time_and_level(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers.clear()
    try:
        log_to_stderr(logging.WARNING, "%(levelname)s: %(message)s")
        log_times()
        logging.getLogger("x").warning("a worker ended")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    line = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z WARNING a worker ended\n"
    assert re.fullmatch(line, capsys.readouterr().err)
