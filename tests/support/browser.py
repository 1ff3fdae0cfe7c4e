"""A real browser, for the tests and for the pictures: the system's Chromium, driven by Playwright.

`page` and `page_log` are fixtures, for every test through `conftest.py`. A page of ours is tried as

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

# Set where a missing browser is a fault of the machine, as in CI, and no reason to skip a test.
REQUIRED = "BROWSER_TESTS_REQUIRED"
MISSING = "there is no chromium on the PATH: apt-get install chromium"
# Machines are shared: a page that is drawn at once here may take its time there.
PATIENCE = 45_000  # milliseconds
SIZE = {"width": 1440, "height": 900}
_FLAGS = [
    "--no-sandbox",  # it needs rights that root in a container does not have
    "--disable-gpu",
    # What the browser asks of its maker's servers on its own account.
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_OUTSIDE = re.compile(r"^(?:http|ws)s?://(?!(?:127\.0\.0\.1|localhost|\[::1\])(?:[:/?#]|$))", re.I)


@dataclass
class PageLog:
    """What went wrong in a page, and the addresses outside this machine that it asked for."""

    errors: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)

    def saw(self, url: str) -> None:
        if _OUTSIDE.match(url):
            self.outside.append(url)


@contextlib.contextmanager
def launched() -> Iterator[Browser]:
    """Run a browser.

    Raises
    ------
    FileNotFoundError
        If there is none on this machine.
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
    """Open a page that remembers nothing of another, and that reaches this machine alone."""
    # A service worker could ask where nobody sees it.
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


# Not for the whole session: while Playwright runs, its event loop counts as the one of the thread,
# and no other test could run one of its own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for the tests of a module; where there is none they are skipped, or fail in CI."""
    if shutil.which("chromium") is None:
        if os.environ.get(REQUIRED):
            pytest.fail(f"{REQUIRED} is set, and {MISSING}", pytrace=False)
        pytest.skip(MISSING)
    with launched() as running:
        yield running


@pytest.fixture
def page_log() -> PageLog:
    """What the page of this test complains of, and what it asks of other machines."""
    return PageLog()


@pytest.fixture
def page(browser: Browser, page_log: PageLog) -> Iterator[Page]:
    """An empty page of 1440 by 900 in a real browser; requests to other machines fail."""
    with opened(browser, page_log) as page:
        yield page
