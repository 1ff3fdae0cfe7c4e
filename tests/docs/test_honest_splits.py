"""The guide to splits by groups and by time, followed to the letter in a copy of this tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.constants import ROOT
from tests.support.documents import reader_in

PAGE = (ROOT / "docs" / "how-to" / "honest-splits.md").read_text()


@pytest.mark.slow
def test_tables_with_groups_and_dates_get_from_the_file_to_production_by_parameters(tmp_path: Path) -> None:
    with reader_in(tmp_path / "clone") as reader:
        assert reader.follow(PAGE) == 7
