"""The tutorial and the guides that continue it, followed to the letter in a clone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.constants import ROOT
from tests.support.documents import CONTINUED, reader_in
from tests.support.servers import free_port


@pytest.mark.slow(minutes=4)
@pytest.mark.timeout(1800)
@pytest.mark.skipif(shutil.which("curl") is None, reason="the tutorial sends requests with curl")
def test_the_tutorial_and_the_guides_print_the_output_that_they_show(tmp_path: Path) -> None:
    with reader_in(tmp_path / "my clone") as reader:  # a space is where unquoted paths break
        tutorial = (ROOT / "docs" / "tutorial.md").read_text()
        assert reader.follow(tutorial, str(free_port())) > 20
        for guide in CONTINUED:
            assert reader.follow((ROOT / "docs" / "how-to" / f"{guide}.md").read_text()) > 2
