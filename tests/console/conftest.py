"""Fixtures: a gated server with users, and a console of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.consoles import running_console
from tests.support.gated import Gated, add_users, gated_server, write_policy

RULES = {"approvals": {"count": 1, "by": ["ana", "ben"]}}


@dataclass(frozen=True)
class GatedConsole:
    """A gated server, and a console that users reach at an address."""

    gated: Gated
    address: str
    log: Path


@pytest.fixture(scope="module")
def console(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatedConsole]:
    """A console whose policy asks for the approval of ana or ben."""
    folder = tmp_path_factory.mktemp("gated")
    with gated_server(empty_database, folder) as gated:
        add_users(gated.uri)
        policy, log = write_policy(folder, **RULES), tmp_path_factory.mktemp("console") / "console.log"
        with running_console(gated.uri, log, "--policy", str(policy)) as address:
            yield GatedConsole(gated, address, log)
