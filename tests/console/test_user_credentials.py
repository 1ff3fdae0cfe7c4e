"""Several users in one process: each request has the credentials of its own user."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from registry_tools.errors import AccessDenied, RegistryToolsError
from registry_tools.mlflow_store.client import connect, current_user, translate_errors
from registry_tools.mlflow_store.user_credentials import User, acting_as, is_password, require_users
from tests.console.conftest import GatedConsole
from tests.support.tracking_servers import account

USERS = {
    name: User(name, account(name)["MLFLOW_TRACKING_PASSWORD"])
    for name in ("trainer", "ana", "ben", "oncall")
}


@pytest.fixture(autouse=True)
def _with_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_AUTH", "")  # restores the variable after the test
    require_users()


def test_a_thread_without_a_user_sends_nothing(
    console: GatedConsole, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in account("ana").items():  # the rights of the process itself do not count
        monkeypatch.setenv(name, value)
    client = connect(console.gated.uri)
    with (
        pytest.raises(RegistryToolsError, match="without a user was not sent"),
        translate_errors(console.gated.uri),
    ):
        client.search_registered_models()


def test_the_user_of_a_body_ends_with_it(console: GatedConsole) -> None:
    client, before = connect(console.gated.uri), current_user()
    with acting_as(USERS["ana"]):
        assert current_user() == "ana"
        with acting_as(USERS["ben"]):
            assert current_user() == "ben"
            client.search_registered_models()
        assert current_user() == "ana"
    assert current_user() == before


def test_only_the_right_password_is_accepted(console: GatedConsole) -> None:
    client = connect(console.gated.uri)
    assert is_password(client, USERS["ana"])
    for name, password in (
        ("ana", USERS["ben"].password),
        ("ana", ""),
        ("", "x"),
        ("ana:x", "y"),
        ("ana", "n\u00f6"),
    ):
        assert not is_password(client, User(name, password))


@pytest.mark.slow
def test_users_in_many_threads_at_once_are_never_mixed(console: GatedConsole) -> None:
    client, name = connect(console.gated.uri), console.gated.model("one")
    run = console.gated.run()

    def register(user: User) -> tuple[str, str]:
        with acting_as(user), translate_errors(console.gated.uri):
            made = client.create_model_version(name, f"{run['artifact_uri']}/x", run["run_id"])
            # The gated store writes down the user that the server authenticated.
            found = client.get_model_version(name, made.version)
        return user.name, found.tags["registered_by"]

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(register, [*USERS.values()] * 15))
    assert len(found) == 60
    assert all(given == stored for given, stored in found), found


def test_a_refused_user_gets_an_error_of_the_library(console: GatedConsole) -> None:
    client = connect(console.gated.uri)
    with pytest.raises(AccessDenied), acting_as(User("ana", "wrong")), translate_errors(console.gated.uri):
        client.search_registered_models()
