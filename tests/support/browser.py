"""Drive the system's Chromium with Playwright, for the browser tests and the screenshots.

`conftest.py` makes the fixtures `page` and `page_log` available to every test. A test of our own page
looks like this:

    page.goto(path.as_uri())
    assert not page_log.errors
    assert not page_log.outside
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

# CI sets this variable: a missing browser then fails the tests instead of skipping them.
REQUIRED = "BROWSER_TESTS_REQUIRED"
MISSING = "there is no chromium on the PATH: apt-get install chromium"
# A loaded machine may need long to draw a page.
PATIENCE = 90_000  # milliseconds
SIZE = {"width": 1440, "height": 900}
_FLAGS = [
    "--no-sandbox",  # the sandbox needs rights that root in a container does not have
    "--disable-gpu",
    # These flags stop requests that the browser sends to its vendor.
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_OUTSIDE = re.compile(r"^(?:http|ws)s?://(?!(?:127\.0\.0\.1|localhost|\[::1\])(?:[:/?#]|$))", re.I)


@dataclass
class PageLog:
    """The errors of a page, and its requests to other machines."""

    errors: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)

    def saw(self, url: str) -> None:
        if _OUTSIDE.match(url):
            self.outside.append(url)


@contextlib.contextmanager
def launched() -> Iterator[Browser]:
    """Run a browser until the body ends.

    Raises
    ------
    FileNotFoundError
        If Chromium is not installed.
    """
    path = shutil.which("chromium")
    if path is None:
        raise FileNotFoundError(MISSING)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=_FLAGS)
        try:
            yield running
        finally:
            running.close()


@contextlib.contextmanager
def opened(running: Browser, log: PageLog) -> Iterator[Page]:
    """Open a page with an empty profile, which can reach only this machine."""
    # Playwright does not see the requests of a service worker.
    context = running.new_context(viewport=SIZE, service_workers="block")
    try:
        context.set_default_timeout(PATIENCE)
        expect.set_options(timeout=PATIENCE)
        _watch(context, log)
        yield context.new_page()
    finally:
        context.close()


def _watch(context: BrowserContext, log: PageLog) -> None:
    context.on("request", lambda request: log.saw(request.url))
    context.route(_OUTSIDE, lambda route: route.abort())
    context.route_web_socket(_OUTSIDE, lambda socket: (log.saw(socket.url), socket.close()))
    context.on("weberror", lambda error: log.errors.append(str(error.error)))
    context.on(
        "console",
        lambda message: (
            log.errors.append(f"{message.location.get('url')}: {message.text}")
            if message.type == "error"
            else None
        ),
    )


def contrast(page: Page) -> float:
    """Return the lowest contrast of a text with its background, as WCAG defines it."""
    pairs = page.evaluate(
        """() => [...document.querySelectorAll("main *")]
          .filter(e => !e.closest("svg") && [...e.childNodes].some(n => n.data?.trim()))
          .map(e => {
            let ground = e;
            while (getComputedStyle(ground).backgroundColor === "rgba(0, 0, 0, 0)")
              ground = ground.parentElement ?? document.body;
            return [e, ground].map((each, place) =>
              getComputedStyle(each)[["color", "backgroundColor"][place]].match(/[0-9.]+/g))
          })"""
    )

    def light(colour: list[str]) -> float:
        parts = (float(part) / 255 for part in colour[:3])
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    found = []
    for pair in pairs:
        dark, bright = sorted(light(colour) for colour in pair)
        found.append((bright + 0.05) / (dark + 0.05))
    return min(found)


# The scope is not the session: while Playwright runs, its event loop is the running loop of the thread,
# and other tests could not start one.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for the tests of a module; without Chromium they are skipped, or fail in CI."""
    if shutil.which("chromium") is None:
        if os.environ.get(REQUIRED):
            pytest.fail(f"{REQUIRED} is set, but {MISSING}", pytrace=False)
        pytest.skip(MISSING)
    with launched() as running:
        yield running


@pytest.fixture
def page_log() -> PageLog:
    """The errors of the page of this test, and its requests to other machines."""
    return PageLog()


@pytest.fixture
def page(browser: Browser, page_log: PageLog) -> Iterator[Page]:
    """An empty page of 1440 by 900 pixels in a real browser; requests to other machines fail."""
    with opened(browser, page_log) as page:
        yield page
