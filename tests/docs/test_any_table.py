"""The guides that begin with a training, each followed to its end, such as serving and monitoring."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.constants import LONG, ROOT
from tests.support.documents import reader_in
from tests.support.servers import free_port

PAGES = (
    "explain-predictions",
    *(pytest.param(page, marks=LONG) for page in ("predict-a-number", "rare-classes", "honest-splits")),
)


@pytest.mark.slow(minutes=1)
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", PAGES)
def test_the_steps_of_a_page_work_as_written(page: str, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "how-to" / f"{page}.md").read_text()
    with reader_in(tmp_path / "clone") as reader:
        assert reader.follow(text, str(free_port())) >= 5
