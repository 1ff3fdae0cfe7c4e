"""A console without users, which reads a database: its checks of requests, and the headers of responses."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from registry_tools.mlflow_store.client import connect
from tests.support.consoles import browser_client, running_console
from tests.support.stores import Trained

HOSTILE = "<script>alert(1)</script>\u202e"


@pytest.fixture(scope="module")
def address(trained_once: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("console")
    shutil.copy(trained_once.folder / "mlflow.db", folder)
    registry = f"sqlite:///{folder}/mlflow.db"
    connect(registry).create_registered_model("a <b>'model'&", description=HOSTILE)
    with running_console(registry, folder / "console.log") as address:
        yield address


@pytest.fixture
def client(address: str) -> Iterator[httpx.Client]:
    with browser_client(address) as client:
        yield client


PATHS = ("/", "/requests", "/models/iris", "/models/iris/stages/staging", "/models/iris/versions/2/staging")


@pytest.mark.parametrize("path", [*PATHS, "/nothing", "/models/none", "/models/iris/versions/7/staging"])
def test_each_page_has_the_headers_that_browsers_need_to_protect_it(client: httpx.Client, path: str) -> None:
    response = client.get(path)
    assert response.status_code == (200 if path in PATHS else 404), response.text
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["X-Frame-Options"] == "DENY"
    assert response.headers["Referrer-Policy"] == "same-origin"
    assert response.headers["Cache-Control"] == "no-store"
    assert "set-cookie" not in response.headers
    assert "<script" not in response.text
    assert "style=" not in response.text


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1.evil.example", ""])
def test_another_host_is_refused(client: httpx.Client, host: str) -> None:
    response = client.get("/", headers={"Host": host})
    assert response.status_code == 400
    assert "iris" not in response.text


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "", None])
def test_a_form_of_another_origin_is_refused(address: str, origin: str | None) -> None:
    headers = {} if origin is None else {"Origin": origin}
    for path in ("/sign-in", "/sign-out", "/models/iris/stages/staging/rollback"):
        assert httpx.post(f"{address}{path}", headers=headers, data={"a": "b"}).status_code == 403


def test_without_users_nothing_can_be_changed(client: httpx.Client) -> None:
    assert "read-only" in client.get("/").text
    for action in ("promote", "rollback"):
        response = client.post(f"/models/iris/stages/staging/{action}", data={"reason": "x", "version": "1"})
        assert response.status_code == 403
        assert "no users" in response.text
    assert "<form" not in client.get("/models/iris/stages/staging").text


def test_head_is_answered_without_a_body_and_other_methods_are_refused(client: httpx.Client) -> None:
    head = client.head("/")
    assert head.status_code == 200
    assert head.content == b""
    for method in ("PUT", "DELETE", "OPTIONS", "TRACE"):
        assert client.request(method, "/").status_code == 405


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"name=a&password=b", "application/json", 415),
        (b"name=a", "", 415),
        (b"name=" + b"x" * 20_000, "application/x-www-form-urlencoded", 413),
        (b"&".join(b"a=b" for _ in range(11)), "application/x-www-form-urlencoded", 400),
        (b"name=%ff", "application/x-www-form-urlencoded", 400),
        ("name=\xe9".encode(), "application/x-www-form-urlencoded", 400),
    ],
)
def test_a_body_that_is_no_small_form_is_refused(
    client: httpx.Client, body: bytes, kind: str, status: int
) -> None:
    assert client.post("/sign-in", content=body, headers={"Content-Type": kind}).status_code == status


def test_names_and_descriptions_are_escaped(client: httpx.Client) -> None:
    first = client.get("/").text
    assert "a &lt;b&gt;&#39;model&#39;&amp;" in first
    page = client.get("/models/a%20%3Cb%3E'model'%26").text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\u202e" in page
    assert "<script" not in page + first


def test_an_error_is_one_line_with_its_status(client: httpx.Client) -> None:
    missing = client.get("/models/none")
    assert missing.status_code == 404
    assert "no registered model &#39;none&#39;" in missing.text
    assert "Traceback" not in missing.text
    assert client.get("/models/iris/stages/latest").status_code == 400
    assert client.get("/models/iris/versions/two/staging").status_code == 404
    assert client.get("/", params={"after": "\x00"}).status_code == 400


def test_an_address_with_a_password_is_refused(tmp_path: Path) -> None:
    assert "each user signs in" in refusal(tmp_path, "--tracking-uri", "http://ana:secret@127.0.0.1:1")


def test_another_host_needs_the_address_of_an_https_proxy(tmp_path: Path) -> None:
    assert "--public-url" in refusal(tmp_path, "--host", "0.0.0.0", code=2)
    assert "--public-url" in refusal(
        tmp_path, "--host", "0.0.0.0", "--public-url", "http://console.example.org", code=2
    )


def refusal(folder: Path, *options: str, code: int = 1) -> str:
    """Return the one line with which the command refuses its options."""
    command = [sys.executable, "-m", "registry_tools", "console", "--port", "0", *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "secret" not in done.stderr
    return done.stderr
