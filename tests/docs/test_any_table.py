"""The guides to tables of other kinds, each followed from its file to the monitoring."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.constants import ROOT
from tests.support.documents import assert_same, commands, fenced, reader_in


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", ["predict-a-number", "rare-classes"])
def test_the_steps_of_a_page_work_as_written(page: str, tmp_path: Path) -> None:
    with reader_in(tmp_path / "clone") as reader:
        for language, block in fenced((ROOT / "docs" / "how-to" / f"{page}.md").read_text()):
            if language == "python":
                name = block.partition("\n")[0].removeprefix("# ")
                (reader.folder / name).write_text(block)
                continue
            for command, shown in commands(block):
                assert_same(reader.run(command), shown, command)
