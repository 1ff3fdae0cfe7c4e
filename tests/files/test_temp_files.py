"""An atomic write: a unique temporary file, short enough for any name, and nothing left."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from registry_tools.files.output_file import output_file
from registry_tools.files.temp_files import atomic_write


def test_two_threads_that_write_one_file_do_not_mix_their_content(tmp_path: Path) -> None:
    target = tmp_path / "out.txt"

    def write(letter: str) -> None:
        with atomic_write(target) as partial:
            partial.write_text(letter * 100_000)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, "abcd" * 5))
    assert target.read_text() in {letter * 100_000 for letter in "abcd"}
    assert list(tmp_path.iterdir()) == [target]


def test_the_longest_file_name_can_be_written(tmp_path: Path) -> None:
    target = tmp_path / ("n" * 251 + ".txt")
    with output_file(target) as partial:
        partial.write_text("whole")
    assert target.read_text() == "whole"
