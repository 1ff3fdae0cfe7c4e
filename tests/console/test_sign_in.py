"""Sign in, sign out, and the rights of a session."""

from __future__ import annotations

from http.cookies import SimpleCookie
from pathlib import Path

import pytest

from tests.console.conftest import GatedConsole
from tests.support.consoles import browser_client, running_console, sign_in, token_of
from tests.support.tracking_servers import account

PASSWORD = account("ana")["MLFLOW_TRACKING_PASSWORD"]


def test_without_a_session_each_page_leads_to_the_form(console: GatedConsole) -> None:
    with browser_client(console.address) as client:
        response = client.get("/models/iris/stages/production?after=x")
        assert response.status_code == 303
        target = "/sign-in?next=%2Fmodels%2Firis%2Fstages%2Fproduction%3Fafter%3Dx"
        assert response.headers["Location"] == target
        form = client.get(target)
        assert form.status_code == 200
        assert 'value="/models/iris/stages/production?after=x"' in form.text
        assert client.post("/models/iris/stages/production/rollback", data={"a": "b"}).status_code == 401


def test_the_cookie_of_a_session_is_closed_to_scripts_and_other_sites(console: GatedConsole) -> None:
    with browser_client(console.address) as client:
        response = client.post("/sign-in", data={"name": "ana", "password": PASSWORD, "next": "/requests"})
        assert response.headers["Location"] == "/requests"
        cookie = SimpleCookie(response.headers["Set-Cookie"])["registry-console"]
        assert cookie["httponly"]
        assert cookie["samesite"] == "strict"
        assert cookie["path"] == "/"
        assert len(cookie.value) >= 43  # 256 bits
        assert not cookie["domain"]
        assert "ana" in client.get("/").text


def test_behind_https_the_cookie_is_secure_and_clients_are_told_apart(
    console: GatedConsole, tmp_path: Path
) -> None:
    public = "https://console.example.org"
    options = ("--public-url", f"{public}:443")
    with (
        running_console(console.gated.uri, tmp_path / "console.log", *options) as address,
        browser_client(address) as client,
    ):
        assert client.get("/").status_code == 400
        names = {"Host": "console.example.org", "Origin": public}
        response = client.post("/sign-in", headers=names, data={"name": "ana", "password": PASSWORD})
        assert SimpleCookie(response.headers["Set-Cookie"])["__Host-registry-console"]["secure"]

        # The proxy names the client. A name with a colon is wrong without asking the registry.
        names["X-Forwarded-Proto"] = "https"
        for number in range(102):
            names["X-Forwarded-For"] = "192.0.2.1" if number < 101 else "192.0.2.2"
            data = {"name": f"{number}:", "password": "guess"}
            expected = 429 if number == 100 else 401
            assert client.post("/sign-in", headers=names, data=data).status_code == expected, number


@pytest.mark.parametrize(
    "target", ["https://evil.example", "//evil.example", "/\\evil.example", "", "a\r\nb"]
)
def test_the_page_after_the_form_is_one_of_the_console(console: GatedConsole, target: str) -> None:
    with browser_client(console.address) as client:
        data = {"name": "ana", "password": PASSWORD, "next": target}
        assert client.post("/sign-in", data=data).headers["Location"] == "/"


def test_a_wrong_password_is_refused_and_shown_nowhere(console: GatedConsole) -> None:
    with browser_client(console.address) as client:
        for name, password in (("ana", "wr0ng-secret"), ("nobody", "wr0ng-secret"), ("a:b", "wr0ng-secret")):
            response = client.post("/sign-in", data={"name": name, "password": password})
            assert response.status_code == 401
            assert "Name or password is wrong" in response.text
            assert "wr0ng-secret" not in response.text
            assert "Set-Cookie" not in response.headers
    with sign_in(console.address, "ana"):
        pass
    log = console.log.read_text()
    assert "wr0ng-secret" not in log
    assert PASSWORD not in log


def test_a_new_session_gets_a_new_id_and_ends_the_old_one(console: GatedConsole) -> None:
    with sign_in(console.address, "ana") as client:
        before = client.cookies["registry-console"]
        client.post("/sign-in", data={"name": "ana", "password": PASSWORD})
        assert client.cookies["registry-console"] != before
        with browser_client(console.address) as other:
            other.cookies.set("registry-console", before)
            assert other.get("/").status_code == 303


def test_signing_out_ends_the_session_on_the_server(console: GatedConsole) -> None:
    with sign_in(console.address, "ana") as client:
        identifier, page = client.cookies["registry-console"], client.get("/").text
        assert client.post("/sign-out", data={"csrf": "x"}).status_code == 403
        assert client.get("/").status_code == 200
        assert client.post("/sign-out", data={"csrf": token_of(page)}).status_code == 303
        client.cookies.set("registry-console", identifier)
        assert client.get("/").status_code == 303


def test_the_token_of_another_session_is_refused(console: GatedConsole) -> None:
    with sign_in(console.address, "ana") as ana, sign_in(console.address, "ben") as ben:
        assert ana.post("/sign-out", data={"csrf": token_of(ben.get("/").text)}).status_code == 403


def test_too_many_attempts_for_a_name_are_refused_before_the_password_is_checked(
    console: GatedConsole,
) -> None:
    with browser_client(console.address) as client:
        for _ in range(10):
            response = client.post("/sign-in", data={"name": "oncall", "password": "guess"})
            assert response.status_code == 401
        right = account("oncall")["MLFLOW_TRACKING_PASSWORD"]
        refused = client.post("/sign-in", data={"name": "oncall", "password": right})
        assert refused.status_code == 429
        assert 0 < int(refused.headers["Retry-After"]) <= 300
        assert client.post("/sign-in", data={"name": "ben", "password": "guess"}).status_code == 401
