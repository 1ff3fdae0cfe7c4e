"""Fixtures: one server with a gated store, in which each test registers its own models."""

from __future__ import annotations

import pytest

from tests.support.gated import Gated, write_policy


@pytest.fixture
def gated(gated_registry: Gated) -> Gated:
    """The server with its first policy: a verdict moves production, without approvals."""
    write_policy(gated_registry.folder)
    return gated_registry


@pytest.fixture
def approved(gated_registry: Gated) -> Gated:
    """The server with a policy that asks for the approval of ana or ben."""
    write_policy(gated_registry.folder, approvals={"count": 1, "by": ["ana", "ben"]})
    return gated_registry
