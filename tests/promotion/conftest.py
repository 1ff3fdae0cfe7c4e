"""Fixtures: a gated server with several users, and the commands of each."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from registry_tools.cli.main import main
from tests.support.gated import Gated, write_policy
from tests.support.tracking_servers import signed_in

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def gated(gated_registry: Gated) -> Gated:
    """The server with a policy that asks for the approval of ana or ben."""
    write_policy(
        gated_registry.folder, approvals={"count": 1, "by": ["ana", "ben"]}, rollback=["oncall", "ana"]
    )
    return gated_registry


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
