"""Fixtures: a gated server with several users, and the commands of each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from registry_tools.cli.main import main
from tests.support.gated import Gated, add_users, gated_server, write_policy
from tests.support.tracking_servers import signed_in

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def _gated_server(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gated]:
    with gated_server(empty_database, tmp_path_factory.mktemp("approvals")) as running:
        add_users(running.uri)
        yield running


@pytest.fixture
def gated(_gated_server: Gated) -> Gated:
    """The server with a policy that asks for the approval of ana or ben."""
    write_policy(
        _gated_server.folder, approvals={"count": 1, "by": ["ana", "ben"]}, rollback=["oncall", "ana"]
    )
    return _gated_server


@pytest.fixture
def run(gated: Gated, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a command as a user, with the policy of the server."""

    def run(user: str, *arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with signed_in(user):
            code = main([*arguments, "--tracking-uri", gated.uri])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err.strip()

    return run


def history(run: Run, name: str) -> list[dict[str, Any]]:
    """Return the events of a model, oldest first."""
    code, out, _ = run("owner", "history", name, "--json")
    assert code == 0
    events: list[dict[str, Any]] = json.loads(out)
    return events[::-1]


def policy(gated: Gated) -> tuple[str, str]:
    return "--policy", str(gated.policy)
