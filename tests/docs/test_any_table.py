"""The guides that begin with a training, each followed to its end, such as serving and monitoring."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.constants import ROOT
from tests.support.documents import reader_in
from tests.support.servers import free_port


@pytest.mark.slow(minutes=1)
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", ["predict-a-number", "rare-classes", "honest-splits", "explain-predictions"])
def test_the_steps_of_a_page_work_as_written(page: str, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "how-to" / f"{page}.md").read_text()
    with reader_in(tmp_path / "clone") as reader:
        assert reader.follow(text, str(free_port())) >= 5
