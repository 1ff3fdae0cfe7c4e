"""Run `registry-tools console` and use it as a browser does, without one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.support.servers import end_group, free_port, wait_until_up
from tests.support.tracking_servers import account


@contextmanager
def running_console(
    registry: str, log: Path, *options: str, environment: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Run the console of a registry, and yield its address."""
    port = free_port()
    command = (sys.executable, "-m", "registry_tools", "console", "--port", str(port))
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*command, "--tracking-uri", registry, *options],
            cwd=log.parent,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
        )
    try:
        wait_until_up(f"http://127.0.0.1:{port}/health", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        end_group(process)


def browser_client(address: str) -> httpx.Client:
    """Return a client that sends the origin of the console, as browsers do with forms."""
    return httpx.Client(base_url=address, headers={"Origin": address}, timeout=120)


@contextmanager
def sign_in(address: str, user: str) -> Iterator[httpx.Client]:
    """Yield a client that signed in as a user."""
    with browser_client(address) as client:
        given = {"name": user, "password": account(user)["MLFLOW_TRACKING_PASSWORD"]}
        response = client.post("/sign-in", data=given)
        assert response.status_code == 303, response.text
        yield client


def token_of(page: str) -> str:
    """Return the token that the forms of a page send."""
    found = re.search(r'name="csrf" value="([\w-]+)"', page)
    assert found is not None, page
    return found[1]


def hidden(page: str, name: str) -> str:
    """Return the value of a hidden field of a page."""
    found = re.search(rf'type="hidden" name="{name}" value="([^"]*)"', page)
    assert found is not None, page
    return found[1]
