"""Fixtures: one server with a gated store, in which each test registers its own models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.gated import Gated, add_users, gated_server, write_policy


@pytest.fixture(scope="session")
def _running(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gated]:
    with gated_server(empty_database, tmp_path_factory.mktemp("gated")) as running:
        add_users(running.uri)
        yield running


@pytest.fixture
def gated(_running: Gated) -> Gated:
    """The server with its first policy: a verdict moves production, without approvals."""
    write_policy(_running.folder)
    return _running


@pytest.fixture
def approved(_running: Gated) -> Gated:
    """The server with a policy that asks for the approval of ana or ben."""
    write_policy(_running.folder, approvals={"count": 1, "by": ["ana", "ben"]})
    return _running
