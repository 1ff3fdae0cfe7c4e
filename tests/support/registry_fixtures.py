"""Fixtures: registries with trained runs, from which each test registers its own models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from registry_tools.mlflow_store import heartbeat, stages
from tests.support import registries
from tests.support.constants import LONG
from tests.support.gated import Gated, add_users, gated_server
from tests.support.postgres import Postgres, has_postgres, postgres
from tests.support.registries import EQUAL, GOOD, Place


@pytest.fixture(scope="session")
def sqlite_place(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    return registries.sqlite_place(empty_database, tmp_path_factory.mktemp("sqlite"))


@pytest.fixture(scope="session")
def server_place(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with registries.server_place(empty_database, tmp_path_factory.mktemp("server")) as place:
        yield place


@pytest.fixture(scope="session")
def database() -> Iterator[Postgres]:
    """A real PostgreSQL, in which each test creates its own databases."""
    with postgres() as running:
        yield running


@pytest.fixture(scope="session")
def guarded_place(
    request: pytest.FixtureRequest, empty_database: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    database = request.getfixturevalue("database") if has_postgres() else None
    folder = tmp_path_factory.mktemp("guarded")
    with registries.guarded_place(empty_database, folder, database) as place:
        yield place


@pytest.fixture(scope="session")
def gated_registry(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gated]:
    """A server with a gated store and users; each test writes its policy and registers its models."""
    with gated_server(empty_database, tmp_path_factory.mktemp("gated")) as running:
        add_users(running.uri)
        yield running


@pytest.fixture(params=["sqlite_place", pytest.param("server_place", marks=[pytest.mark.slow, LONG])])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A registry with three trained runs: on SQLite, and behind a server."""
    found: Place = request.getfixturevalue(request.param)
    monkeypatch.chdir(tmp_path)
    for name, value in {"MLFLOW_TRACKING_URI": found.uri, **found.environment}.items():
        monkeypatch.setenv(name, value)
    return found


@pytest.fixture
def local(sqlite_place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The registry on SQLite only, for tests that do not depend on the kind of registry."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", sqlite_place.uri)
    return sqlite_place


@pytest.fixture
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the heartbeat of a killed process expire within half a second."""
    monkeypatch.setattr(heartbeat, "HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setattr(heartbeat, "EXPIRY_SECONDS", 0.5)


@pytest.fixture
def model(local: Place) -> str:
    """A model with two versions, the first in production."""
    name = local.model(GOOD, EQUAL)
    stages.move_alias(local.client, name, "production", 1)
    return name
