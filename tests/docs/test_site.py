"""The site that `make docs` builds: complete, without a dead link, and readable without a network."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import threading
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import Page, expect

from registry_tools.cli.main import cli as registry_cli
from tests.support.browser import PageLog
from tests.support.constants import ROOT
from tests.support.documents import reader_in
from tests.support.servers import BIN, free_port

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


def test_make_docs_fails_at_a_dead_link(tmp_path: Path) -> None:
    with reader_in(tmp_path / "clone") as reader:  # with --quiet, mkdocs forgets to be strict
        reader.run("mkdir mlruns_example")  # the copy leaves the example out
        assert "exit 0\n" in reader.run("make docs; echo exit $?")
        reader.run("echo '[nowhere](nowhere.md)' >> docs/tutorial.md")
        printed = reader.run("make docs; echo exit $?")
        assert "nowhere.md" in printed
        assert "exit 2\n" in printed


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
    for path in sorted(site.rglob("*.html")):
        if path.name == "404.html":  # its links begin with / and work on a server alone
            continue
        page.goto(path.as_uri())
        assert page.locator("h1").first.is_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(255, 255, 255)") is (scheme == "light")
    assert page_log.outside == []
    assert page_log.errors == []


def test_the_search_of_the_served_site_finds_a_page(site: Path, page: Page, page_log: PageLog) -> None:
    handler = functools.partial(SimpleHTTPRequestHandler, directory=site)
    with ThreadingHTTPServer(("127.0.0.1", free_port()), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page.goto(f"http://127.0.0.1:{server.server_port}/index.html")
        page.get_by_role("textbox", name="Search").fill("margin non-inferior")
        expect(page.locator(".md-search-result__item").first).to_contain_text("non-inferior")
        server.shutdown()
    assert page_log.outside == []
    assert page_log.errors == []


def test_the_generated_pages_describe_every_command_and_parameter(site: Path) -> None:
    commands = (site / "reference" / "command-line.html").read_text()
    for command in registry_cli.commands.values():
        assert f'id="registry-tools-{command.name}"' in commands
    for option in ("--expect-current", "--max-latency-ratio", "--min-rows", "--log-predictions"):
        assert option in commands
    parameters = (site / "reference" / "mlproject.html").read_text()
    for entry in yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"].values():
        for name in entry["parameters"]:
            assert f"<code>{name}</code>" in parameters
