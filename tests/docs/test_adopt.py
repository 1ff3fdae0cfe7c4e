"""The guide to your own table and estimator, followed to the letter in a copy of this tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.constants import LONG, ROOT
from tests.support.documents import assert_same, commands, fenced, reader_in
from tests.support.servers import BIN

PAGE = (ROOT / "docs" / "how-to" / "your-own-table.md").read_text()


@LONG
@pytest.mark.slow(minutes=2)
@pytest.mark.timeout(600)
def test_the_steps_of_the_page_work_as_written(tmp_path: Path) -> None:
    if (ROOT / "own.mk").exists() or not (ROOT / ".git").exists():
        pytest.skip("this is a clone that was adopted, or none")
    with reader_in(tmp_path / "clone") as reader:
        for language, block in fenced(PAGE):
            if language == "console":
                for command, shown in commands(block):
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
                (reader.folder / name).write_text(block)
        renamed = reader.run("git grep -c tumour-registry | cut -d: -f1").split()
        assert {"MLproject", "conda.yaml", "pyproject.toml"} < set(renamed)
        assert reader.run("git grep registry-pipeline") == ""


def test_numbers_may_differ_a_little_and_words_may_not() -> None:
    assert_same("accuracy  0.955 on 30 rows", "accuracy  0.96 on 30 rows", "x")
    for other in ("accuracy  0.85 on 30 rows", "accuracy  0.95 on 31 rows", "0.95 on 30 rows"):
        with pytest.raises(AssertionError):
            assert_same(other, "accuracy  0.95 on 30 rows", "x")
