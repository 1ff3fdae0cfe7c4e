"""Every interleaving of a few clients, on the model of the protocol."""

from __future__ import annotations

from typing import Any

import pytest

from tests.promotion import protocol_model
from tests.promotion.protocol_model import REPAIR, Client, State, Violation, explore
from tests.support.constants import LONG

REFUSALS = {"is_gated": True, "refusals_left": 2}


def start(*commands: tuple[int, ...], **environment: Any) -> State:
    return State(tuple(Client(each) for each in commands), **environment)


def test_two_clients_with_two_promotions_each_keep_the_invariants_through_crashes() -> None:
    assert explore(start((1, 2), (3, 4), crashes_left=2)) == 9_888


def test_two_clients_that_promote_the_same_versions_keep_the_invariants_through_crashes() -> None:
    assert explore(start((1, 2), (2, 1), crashes_left=2)) == 5_692


def test_a_repair_beside_promotions_keeps_the_invariants() -> None:
    assert explore(start((1, 2), (REPAIR, REPAIR), crashes_left=2)) == 2_016


def test_a_version_whose_digest_changes_keeps_the_invariants() -> None:
    assert explore(start((1, 2), (2, REPAIR), crashes_left=1, faults_left=frozenset({1}))) == 19_822


def test_a_move_by_another_tool_keeps_the_invariants() -> None:
    assert explore(start((1, 2), (2, 1), external_moves_left=1)) == 18_356


def test_a_gated_registry_that_refuses_some_moves_keeps_the_invariants() -> None:
    assert explore(start((1, 2), (3,), crashes_left=1, **REFUSALS)) == 81_350
    assert explore(start((1, 2), (REPAIR,), crashes_left=1, **REFUSALS)) == 18_866


def test_a_return_to_an_earlier_version_in_a_gated_registry_keeps_the_invariants() -> None:
    assert explore(start((1, 2), (2, 1), crashes_left=1, is_gated=True)) == 8_441
    assert explore(start((1, 2, 1), (REPAIR,), crashes_left=1, is_gated=True, refusals_left=1)) == 20_884


@pytest.mark.parametrize("missing", ["mark", "look for newer"])
def test_the_model_finds_the_fault_of_a_protocol_without_a_step(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance = protocol_model.advance

    def advance_without(state: State, who: int) -> State:
        client = state.clients[who]
        if client.step != missing:
            return advance(state, who)
        following = {"mark": "set alias", "look for newer": "set head"}[missing]
        return protocol_model.replace_client(state, who, client._replace(step=following))

    monkeypatch.setattr(protocol_model, "advance", advance_without)
    with pytest.raises(Violation):
        explore(start((1, 2), (3, 4), crashes_left=1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("commands", "environment", "states"),
    [
        pytest.param(((1, 2), (3, 4)), {"crashes_left": 1} | REFUSALS, 347_557, marks=LONG),
        (((1,), (2,), (3,)), {"crashes_left": 3}, 157_415),
        pytest.param(((1, 2), (2, 1), (REPAIR,)), {"crashes_left": 1}, 255_203, marks=LONG),
        pytest.param(((1, 2), (2, 1), (1, 2)), {"crashes_left": 1}, 678_652, marks=LONG),
    ],
)
def test_more_clients_and_refusals_keep_the_invariants(
    commands: tuple[tuple[int, ...], ...], environment: dict[str, Any], states: int
) -> None:
    assert explore(start(*commands, **environment)) == states
