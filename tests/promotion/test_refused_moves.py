"""Events whose move a gated registry refuses: they fail at once, by whichever client applies them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED

from registry_tools.cli.main import main
from registry_tools.errors import AccessDenied, MoveRefused
from registry_tools.evaluation.gate_options import GateOptions
from registry_tools.evaluation.verdict import GateResult, Verdict
from registry_tools.mlflow_store import stages
from registry_tools.mlflow_store.client import translate_errors
from registry_tools.promotion import history, moves, promote, recovery
from registry_tools.promotion.event_log import EventLog
from registry_tools.refs import ModelRef
from tests.support.registries import EQUAL, GOOD, Place

_PASSED = Verdict((GateResult("none", True, "not evaluated here"),))
_REASON = "version 2 has no verdict; run: registry-tools evaluate iris/2 --to production"


@pytest.fixture(autouse=True)
def _pass_all_gates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promote, "evaluate", lambda *_: _PASSED)


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that lets the registry refuse to move a stage to some versions."""
    move_alias = stages.move_alias

    def refuse(*versions: int) -> None:
        def guarded(client: Any, name: str, stage: str, version: int | None) -> None:
            if version in versions and stages.stage_holder(client, name, stage) != version:
                raise MoveRefused(_REASON)
            move_alias(client, name, stage, version)

        monkeypatch.setattr(stages, "move_alias", guarded)

    return refuse


def move(place: Place, name: str, version: int) -> None:
    promote.promote(place.client, ModelRef(name, version=version), "production", GateOptions())


def events(place: Place, name: str) -> list[tuple[str, str, int | None]]:
    entries = reversed(history.list_events(place.client, name))
    return [(event.action, event.outcome, event.version) for event in entries]


def test_a_refusal_of_the_registry_is_an_error_of_its_own_without_the_prefix() -> None:
    with pytest.raises(MoveRefused, match=r"^no verdict$"), translate_errors("here"):
        raise MlflowException("stage refused: no verdict", PERMISSION_DENIED)
    with pytest.raises(AccessDenied, match="here refused this: Permission denied"), translate_errors("here"):
        raise MlflowException("Permission denied", PERMISSION_DENIED)


def test_a_refused_promotion_fails_with_the_reason_and_leaves_nothing_open(
    local: Place, refuse: Callable[..., None]
) -> None:
    name = local.model(GOOD, EQUAL)
    move(local, name, 1)
    refuse(2)
    with pytest.raises(MoveRefused, match=f"^{_REASON}$"):
        move(local, name, 2)
    assert events(local, name) == [("promote", "applied", 1), ("promote", "failed", 2)]
    assert history.list_events(local.client, name)[0].failure == f"stage refused: {_REASON}"
    assert local.holder(name) == 1
    assert EventLog.find(local.client, name).marked(*_progress(local, name)) == {}
    assert recovery.repair(local.client, name) == []


def _progress(place: Place, name: str) -> tuple[dict[str, str], str]:
    return EventLog.find(place.client, name).progress("production"), "production"


def test_an_open_event_whose_move_is_refused_fails_at_the_next_command(
    local: Place, refuse: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = local.model(GOOD, EQUAL, GOOD)
    move(local, name, 1)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(moves, "apply", interrupt)
        with pytest.raises(KeyboardInterrupt):
            move(local, name, 2)
    refuse(2)
    move(local, name, 3)
    assert [outcome for _, outcome, _ in events(local, name)] == ["applied", "failed", "applied"]
    assert local.holder(name) == 3


def test_a_refused_promotion_does_not_undo_a_move_by_another_tool(
    local: Place, refuse: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = local.model(GOOD, EQUAL, GOOD)
    move(local, name, 1)
    refuse(2)
    claim = EventLog.claim

    def claim_late(log: EventLog, event: Any) -> bool:
        local.client.set_registered_model_alias(name, "production", "3")
        return claim(log, event)

    with monkeypatch.context() as patch:
        patch.setattr(EventLog, "claim", claim_late)
        with pytest.raises(MoveRefused):
            move(local, name, 2)
    assert local.holder(name) == 3
    recovery.repair(local.client, name)
    assert events(local, name)[-1] == ("external", "applied", 3)


def test_a_late_write_that_may_not_be_undone_is_recorded_as_external(
    local: Place, refuse: Callable[..., None]
) -> None:
    name = local.model(GOOD, EQUAL)
    move(local, name, 1)
    first = history.list_events(local.client, name)[0]
    move(local, name, 2)
    EventLog.find(local.client, name).mark_applying(first)
    stages.move_alias(local.client, name, "production", 1)
    refuse(2)
    assert recovery.repair(local.client, name) == [
        "production was moved from version 2 to version 1 externally; recorded"
    ]
    assert local.holder(name) == 1


def test_the_command_prints_a_refusal_as_one_line_and_exits_with_3(
    local: Place, refuse: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    name = local.model(GOOD)
    refuse(1)
    code = main(["promote", f"{name}/1", "--to", "production", "--tracking-uri", local.uri])
    assert code == 3
    assert capsys.readouterr().err.strip().endswith(_REASON)
