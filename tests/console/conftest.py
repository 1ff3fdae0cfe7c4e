"""Fixtures: a gated server with users, and a console of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.consoles import running_console
from tests.support.gated import Gated, write_policy

RULES = {"approvals": {"count": 1, "by": ["ana", "ben"]}}


@dataclass(frozen=True)
class GatedConsole:
    """A gated server, and a console that users reach at an address."""

    gated: Gated
    address: str
    log: Path


@pytest.fixture(scope="module")
def _running(gated_registry: Gated, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatedConsole]:
    log = tmp_path_factory.mktemp("console") / "console.log"
    with running_console(gated_registry.uri, log, "--policy", str(gated_registry.policy)) as address:
        yield GatedConsole(gated_registry, address, log)


@pytest.fixture
def console(_running: GatedConsole) -> GatedConsole:
    """A console whose policy asks for the approval of ana or ben."""
    write_policy(_running.gated.folder, **RULES)
    return _running
