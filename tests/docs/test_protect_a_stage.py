"""The guide about a protected stage, followed by two users in a shell and in a browser."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import PageLog, opened
from tests.support.constants import ROOT
from tests.support.documents import reader_in
from tests.support.mlflow_ui import save_alias
from tests.support.servers import free_port, wait_until_up

GUIDE = ROOT / "docs" / "how-to" / "protect-a-stage.md"


@contextmanager
def governed(clone: Path) -> Iterator[tuple[str, str]]:
    """Run the registry of `make governed`; yield its address and the address of its console."""
    port, console = free_port(), free_port()
    options = ("--port", str(port), "--console-port", str(console))
    command = [sys.executable, "-m", "pipeline", "governed", *options]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "REGISTRY_TOOLS_"))}
    with (clone / "printed.txt").open("w") as out:
        process = subprocess.Popen(command, cwd=clone, env=environment, stdout=out, stderr=out)
    try:
        wait_until_up(f"http://127.0.0.1:{console}/health", process)
        yield f"http://127.0.0.1:{port}", f"http://127.0.0.1:{console}"
    finally:
        process.send_signal(signal.SIGTERM)  # to this process only, which has to end both servers
        process.wait(timeout=60)


def password_of(user: str, clone: Path) -> str:
    (found,) = re.findall(r"PASSWORD=(\S+)", (clone / "governed" / f"{user}.sh").read_text())
    return str(found)


def approve(page: Page, console: str, password: str) -> None:
    """Approve the only request in the console as ben."""
    page.goto(console)
    page.get_by_label("Name").fill("ben")
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("link", name="Requests").click()
    page.get_by_role("link", name="iris version 1 for production").click()
    page.get_by_label("Reason").first.fill("read the verdict")
    page.get_by_role("button", name="Approve").click()
    expect(page.get_by_role("button", name="Promote")).to_be_visible()


@pytest.mark.slow(minutes=4)
@pytest.mark.timeout(900)
def test_two_users_follow_the_guide_in_a_shell_and_in_a_browser(browser: Browser, tmp_path: Path) -> None:
    start, refused, request, approval, alias, *rest = GUIDE.read_text().split("\n## ")[1:]
    clone = tmp_path / "clone"
    clone.mkdir()
    with reader_in(clone) as reader, opened(browser, PageLog()) as mlflow, opened(browser, PageLog()) as ben:
        with governed(clone) as (registry, console):
            ana = ("ana", password_of("ana", clone))
            assert reader.follow(start) == 3
            assert reader.follow(refused) == 1
            save_alias(mlflow, registry, ana, "models/iris/versions/1", "production")
            expect(mlflow.get_by_role("dialog").get_by_text("it has no verdict")).to_be_visible()
            assert reader.follow(request) == 3
            assert reader.follow(approval) == 0
            approve(ben, console, password_of("ben", clone))
            save_alias(mlflow, registry, ana, "models/iris/versions/1", "production")
            expect(mlflow.get_by_text("Production", exact=True)).to_be_visible()
            for section in (alias, *rest[:-1]):
                assert reader.follow(section) > 0
        for address in (registry, console):
            with pytest.raises(httpx.ConnectError):
                httpx.get(address)
