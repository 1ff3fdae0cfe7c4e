"""The page on joblib files, followed to the letter."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.test_documents import assert_shown, blocks, conversations, fresh_checkout
from tests.support.constants import LONG, ROOT

PAGE = (ROOT / "docs" / "how-to" / "from-a-joblib-file.md").read_text()


@LONG
@pytest.mark.slow
def test_a_reader_gets_from_the_file_to_a_stage_as_the_page_shows(tmp_path: Path) -> None:
    project = fresh_checkout(tmp_path)
    (script,) = blocks("python", PAGE)
    (project / "lesson.py").write_text(script)
    shown = conversations(PAGE)
    assert len(shown) == 5
    assert_shown(project, shown)
