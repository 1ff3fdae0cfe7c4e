"""The site that `make docs` builds: complete, without a dead link, and readable without a network."""

from __future__ import annotations

import os
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.support.browser import PageLog
from tests.support.constants import ROOT
from tests.support.servers import BIN

pytestmark = pytest.mark.slow

FETCHED = {"script": "src", "img": "src", "iframe": "src", "link": "href", "source": "src", "embed": "src"}


class FetchedAddresses(HTMLParser):
    """What a browser fetches by itself when it opens a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        address = dict(attrs).get(FETCHED.get(tag, ""))
        if address:
            self.found.append(address)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [BIN / "mkdocs", "build", "--strict", "--site-dir", folder]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_document_is_a_page_of_the_site(site: Path) -> None:
    for document in (ROOT / "docs").rglob("*.md"):
        assert (site / document.relative_to(ROOT / "docs").with_suffix(".html")).exists(), document
    for name in ("index", "security", "contributing", "changelog"):
        assert (site / f"{name}.html").exists()


def test_no_page_fetches_a_script_style_or_font_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        parser = FetchedAddresses()
        parser.feed(page.read_text())
        assert parser.found
        outside = [address for address in parser.found if re.match(r"(?:\w+:)?//", address)]
        assert outside == [], page
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(?:\w+:)?//|@import", style.read_text()), style


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_a_page_opens_from_a_disk_and_fits_its_window(
    width: int, scheme: str, site: Path, page: Page, page_log: PageLog
) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    for name in ("index.html", "decisions/0017-event-log.html"):
        page.goto((site / name).as_uri())
        assert page.locator("h1").first.is_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(255, 255, 255)") is (scheme == "light")
    assert page_log.outside == []
    assert page_log.errors == []
