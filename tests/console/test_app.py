"""The application without a server: limits on attempts, the way to the form, and the status of errors."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from mlflow import MlflowClient

from registry_tools.console.app import create_app
from registry_tools.console.context import Console
from registry_tools.console.problem import Problem
from registry_tools.console.server import origin_of
from registry_tools.console.sessions import AttemptLimit, Sessions
from registry_tools.errors import PolicyError

ADDRESS = "http://127.0.0.1:5002"


def make_console(**limits: AttemptLimit) -> Console:
    """Return a console of a registry that these tests never ask."""
    client = MlflowClient("http://127.0.0.1:1")
    return Console(client.tracking_uri, client, Sessions(client), None, (ADDRESS,), **limits)


def send(console: Console, method: str, path: str, host: str = "127.0.0.1", **options: Any) -> httpx.Response:
    """Send a request from a host to the application."""
    transport = httpx.ASGITransport(create_app(console), client=(host, 1))

    async def request() -> httpx.Response:
        async with httpx.AsyncClient(
            transport=transport, base_url=ADDRESS, headers={"Origin": ADDRESS}
        ) as client:
            return await client.request(method, path, **options)

    return asyncio.run(request())


def attempt(console: Console, host: str, name: str) -> int:
    """Try to sign in, and return the status. A name with a colon is wrong without asking the registry."""
    return send(console, "POST", "/sign-in", host, data={"name": name, "password": "guess"}).status_code


def test_a_client_over_its_limit_does_not_use_up_the_attempts_of_a_name() -> None:
    console = make_console(by_address=AttemptLimit(1), by_name=AttemptLimit(1))
    assert attempt(console, "192.0.2.1", "x:y") == 401
    assert attempt(console, "192.0.2.1", "ana:") == 429
    assert attempt(console, "192.0.2.2", "ana:") == 401


@pytest.mark.parametrize(
    "page", ["/models/gr%C3%BC%C3%9Fe%20an%20alle", "/models/100%25%3F/stages/production?after=a%2Fb"]
)
def test_the_form_leads_back_to_a_page_of_any_name(page: str) -> None:
    console = make_console()
    moved = send(console, "GET", page)
    assert moved.status_code == 303
    form = send(console, "GET", moved.headers["Location"])
    assert f'name="next" value="{page}"' in form.text


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://127.0.0.1:80", "http://127.0.0.1"),
        ("http://[::1]:80", "http://[::1]"),
        ("https://console.example.org:443", "https://console.example.org"),
        ("https://console.example.org:80", "https://console.example.org:80"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
    ],
)
def test_the_origin_leaves_out_the_default_port_as_browsers_do(url: str, origin: str) -> None:
    assert origin_of(url) == origin


def test_an_invalid_policy_of_the_console_is_its_own_fault() -> None:
    assert Problem.of(PolicyError("policy registry.yaml is empty")).status == 503
