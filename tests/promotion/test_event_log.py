"""The event log on a real registry: late writes, broken chains, new stages, emptied stages."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from pipeline.params.definitions import TrainParams
from pipeline.training.train import train
from registry_tools.cli.main import main
from registry_tools.errors import BrokenHistory, NotFound, PromotionError, StageMoved
from registry_tools.evaluation.gate_options import GateOptions
from registry_tools.evaluation.verdict import GateResult, Verdict
from registry_tools.mlflow_store import registry, stages
from registry_tools.mlflow_store.tags import DELETING_TAG
from registry_tools.policy.tag_names import DIGEST_TAG
from registry_tools.promotion import deletion, history, moves, promote, recovery, rollback
from registry_tools.promotion.event import Event
from registry_tools.promotion.event_log import EventLog
from registry_tools.promotion.promote import Promotion
from registry_tools.refs import ModelRef
from tests.support.registries import EQUAL, GOOD, Place
from tests.support.servers import BIN

_PASSED = Verdict((GateResult("none", True, "not evaluated here"),))


@pytest.fixture(autouse=True)
def _pass_all_gates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each version pass: the gates are tested elsewhere, and take time."""
    monkeypatch.setattr(promote, "evaluate", lambda *_: _PASSED)
    monkeypatch.setattr(rollback, "evaluate_rollback", lambda *_: _PASSED)


def move(place: Place, name: str, version: int, stage: str = "production", **options: Any) -> Promotion:
    ref = ModelRef(name, version=version)
    return promote.promote(place.client, ref, stage, GateOptions(), reason="test", **options)


def roll_back(place: Place, name: str, **options: Any) -> int:
    return rollback.rollback(place.client, name, "production", reason="back", **options).version


def events(place: Place, name: str) -> list[tuple[str, str, int | None]]:
    """Return the events of a model, oldest first."""
    entries = reversed(history.list_events(place.client, name))
    return [(event.action, event.outcome, event.version) for event in entries]


def test_a_late_write_of_a_killed_client_is_undone_and_reported(local: Place) -> None:
    name = local.model(GOOD, EQUAL, GOOD)
    first = move(local, name, 1).event
    move(local, name, 2)
    assert first is not None
    # A client that was about to apply the first event goes on, and is killed.
    EventLog.find(local.client, name).mark_applying(first)
    stages.move_alias(local.client, name, "production", 1)
    assert recovery.repair(local.client, name) == [
        "production was moved from version 2 to version 1 by a delayed client; restored"
    ]
    assert local.holder(name) == 2
    assert events(local, name) == [("promote", "applied", 1), ("promote", "applied", 2)]
    # Another tool that moves the stage to another version is recorded all the same.
    stages.move_alias(local.client, name, "production", 3)
    assert move(local, name, 1).notes == (
        "production was moved from version 2 to version 3 externally; recorded",
    )


def test_a_slow_client_that_overwrote_a_newer_event_restores_it(
    local: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = local.model(GOOD, EQUAL, GOOD)
    move(local, name, 1)
    move_alias = stages.move_alias

    def overtaken(client: Any, model: str, stage: str, version: int | None) -> None:
        monkeypatch.setattr(stages, "move_alias", move_alias)
        move(local, name, 3)  # by another client: it applies version 2 first, and then version 3
        move_alias(client, model, stage, version)

    monkeypatch.setattr(stages, "move_alias", overtaken)
    result = move(local, name, 2)
    assert result.event is not None
    assert result.event.outcome == "applied"
    assert local.holder(name) == 3
    assert [version for _, _, version in events(local, name)] == [1, 2, 3]
    assert recovery.repair(local.client, name) == []


def test_of_two_promotions_from_one_head_one_is_superseded(
    local: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = local.model(GOOD, EQUAL, GOOD)
    move(local, name, 1)
    claim = EventLog.claim

    def claimed_meanwhile(log: EventLog, event: Event) -> bool:
        monkeypatch.setattr(EventLog, "claim", claim)
        move(local, name, 3)
        return claim(log, event)

    monkeypatch.setattr(EventLog, "claim", claimed_meanwhile)
    with pytest.raises(StageMoved, match="moved from version 1 to version 3 in the meantime"):
        move(local, name, 2)
    assert sorted(events(local, name)) == [
        ("promote", "applied", 1), ("promote", "applied", 3), ("promote", "superseded", 2),
    ]  # fmt: skip


def test_a_claimed_event_fails_if_its_version_was_changed_before_it_is_applied(
    local: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = local.model(GOOD, EQUAL)
    move(local, name, 1)
    with monkeypatch.context() as patch:
        patch.setattr(moves, "apply", interrupt)
        with pytest.raises(KeyboardInterrupt):
            move(local, name, 2)
    local.client.set_model_version_tag(name, "2", DIGEST_TAG, "another")
    assert recovery.repair(local.client, name) == ["promote 2 → production was left open; now failed"]
    assert local.holder(name) == 1
    newest = history.list_events(local.client, name, limit=1)[0]
    assert newest.failure == "the digest of version 2 was changed after the event was recorded"
    assert history.inconsistencies(local.client, name, {"production": 1}) == []


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def test_a_version_that_a_promotion_has_claimed_is_not_deleted(
    local: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = local.model(GOOD, EQUAL)
    apply = moves.apply

    def delete_first(log: EventLog, event: Event) -> None:
        with pytest.raises(PromotionError, match="version 2 is in production"):
            deletion.delete(local.client, ModelRef(name, version=2))
        apply(log, event)

    monkeypatch.setattr(moves, "apply", delete_first)
    move(local, name, 2)
    assert local.holder(name) == 2
    assert DELETING_TAG not in local.client.get_model_version(name, "2").tags


def test_a_version_that_is_being_deleted_is_not_promoted(
    local: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = local.model(GOOD, EQUAL)
    move(local, name, 1)
    delete_version = registry.delete_version

    def promoted_first(client: Any, model: str, version: int) -> None:
        with pytest.raises(PromotionError, match="version 2 is being deleted"):
            move(local, name, 2)
        delete_version(client, model, version)

    monkeypatch.setattr(registry, "delete_version", promoted_first)
    deletion.delete(local.client, ModelRef(name, version=2))
    assert local.holder(name) == 1
    assert events(local, name)[-1] == ("promote", "failed", 2)


def test_a_typing_error_in_a_stage_opens_none(local: Place) -> None:
    name = local.model(GOOD, EQUAL)
    with pytest.raises(NotFound, match="has no stage 'prod': did you mean production"):
        move(local, name, 1, "prod")
    with pytest.raises(NotFound, match="has no stage 'zzz': its stages are production, staging"):
        move(local, name, 1, "zzz", dry_run=True)
    move(local, name, 1, "canary", new_stage=True)
    move(local, name, 2, "canary")
    with pytest.raises(NotFound, match="did you mean canary"):
        move(local, name, 1, "canari")


def test_an_emptied_stage_is_recorded_and_comes_back(local: Place) -> None:
    name = local.model(GOOD, EQUAL, GOOD)
    move(local, name, 1)
    move(local, name, 2)
    event = rollback.unset(local.client, name, "production", reason="it is broken", actor="ada")
    assert (event.action, event.version, event.previous_version, event.actor) == ("unset", None, 2, "ada")
    assert local.holder(name) is None
    with pytest.raises(PromotionError, match="holds no version: there is nothing to unset"):
        rollback.unset(local.client, name, "production", reason="again")
    assert recovery.repair(local.client, name) == []
    assert roll_back(local, name) == 2
    assert local.holder(name) == 2
    assert roll_back(local, name) == 1


def test_the_champion_of_an_emptied_stage_is_the_last_version_that_held_it(
    local: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = local.model(GOOD, EQUAL, GOOD)
    move(local, name, 2)
    rollback.unset(local.client, name, "production", reason="it is broken")
    champions = []

    def evaluate(_: Any, __: Any, champion: Any, *___: Any) -> Verdict:
        champions.append(champion and champion.version)
        return _PASSED

    monkeypatch.setattr(promote, "evaluate", evaluate)
    move(local, name, 3, dry_run=True)
    move(local, name, 3)
    assert champions == [2, 2]


def test_a_rollback_leaves_out_external_moves_unless_it_names_the_version(local: Place) -> None:
    name = local.model(GOOD, EQUAL, GOOD)
    move(local, name, 1)
    stages.move_alias(local.client, name, "production", 3)
    move(local, name, 2)
    assert roll_back(local, name, to=3) == 3
    assert roll_back(local, name) == 1


def test_a_training_records_the_move_of_its_stage(store: str, tmp_path: Any) -> None:
    for model in ("svc", "knn"):
        train(TrainParams(model=model, plots=False))
    from mlflow import MlflowClient

    client = MlflowClient(store)
    entries = history.list_events(client, "iris")
    assert [(e.action, e.outcome, e.version, e.previous_version, e.sequence) for e in entries] == [
        ("register", "applied", 2, 1, 2),
        ("register", "applied", 1, None, 1),
    ]
    assert rollback.rollback(client, "iris", "staging", reason="back").version == 1


def test_an_event_that_was_changed_afterwards_breaks_the_chain(local: Place) -> None:
    name = local.model(GOOD, EQUAL, GOOD)
    move(local, name, 1)
    event = move(local, name, 2).event
    assert event is not None
    content = local.client.get_run(event.run_id).data.tags["content"]
    local.client.set_tag(event.run_id, "content", content.replace('"test"', '"forged"'))
    with pytest.raises(BrokenHistory, match="was changed after it was recorded"):
        move(local, name, 3)
    local.client.set_tag(event.run_id, "content", content)
    move(local, name, 3)


@pytest.mark.slow
def test_after_a_removed_event_repair_begins_a_new_chain(
    local: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    name = local.model(GOOD, EQUAL, GOOD)
    move(local, name, 1)
    event = move(local, name, 2).event
    assert event is not None
    local.client.delete_run(event.run_id)
    for options in ([], ["--new-chain"]):
        assert main(["repair", name, *options]) == 1
        assert f"mlflow runs restore --run-id {event.run_id}" in capsys.readouterr().err
    remove_for_good(local, event.run_id)
    assert main(["repair", name]) == 1
    assert f"registry-tools repair {name} --new-chain" in capsys.readouterr().err
    assert main(["repair", name, "--new-chain"]) == 0
    assert capsys.readouterr().out == "production has a new chain, from event 2\n"
    assert deletion_is_refused(local, name, 1)
    assert events(local, name) == [("promote", "applied", 1), ("external", "applied", 2)]
    assert local.holder(name) == 2
    move(local, name, 3)
    assert roll_back(local, name) == 1
    assert recovery.repair(local.client, name, new_chain=True) == []


def remove_for_good(place: Place, run_id: str) -> None:
    store = ["--backend-store-uri", place.uri, "--tracking-uri", place.uri]
    subprocess.run([BIN / "mlflow", "gc", *store, "--run-ids", run_id], check=True, capture_output=True)


@pytest.mark.slow
def test_after_the_removal_of_its_first_run_a_history_takes_new_stages(local: Place) -> None:
    name = local.model(GOOD, EQUAL, GOOD)
    move(local, name, 1)
    root = EventLog.find(local.client, name).root
    local.client.delete_run(root)
    remove_for_good(local, root)
    move(local, name, 2)  # the chain of the stage does not need it
    with pytest.raises(BrokenHistory, match="--new-chain"):
        move(local, name, 3, "staging")
    recovery.repair(local.client, name, new_chain=True)
    move(local, name, 3, "staging")
    assert events(local, name) == [("promote", "applied", number) for number in (1, 2, 3)]
    assert roll_back(local, name) == 1


def deletion_is_refused(place: Place, name: str, version: int) -> bool:
    with pytest.raises(PromotionError, match="that a rollback of production would go back to"):
        deletion.delete(place.client, ModelRef(name, version=version))
    return DELETING_TAG not in place.client.get_model_version(name, str(version)).tags


def test_a_slow_client_restores_a_move_by_another_tool_as_well(
    local: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = local.model(GOOD, EQUAL, GOOD)
    move(local, name, 1)
    move_alias = stages.move_alias

    def overtaken(client: Any, model: str, stage: str, version: int | None) -> None:
        monkeypatch.setattr(stages, "move_alias", move_alias)
        recovery.repair(local.client, name)
        local.client.set_registered_model_alias(name, "production", "3")
        recovery.repair(local.client, name)
        move_alias(client, model, stage, version)

    monkeypatch.setattr(stages, "move_alias", overtaken)
    move(local, name, 2)
    assert local.holder(name) == 3
    assert recovery.repair(local.client, name) == []


def test_a_repair_during_a_promotion_supersedes_it_and_moves_nothing(
    local: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = local.model(GOOD, EQUAL)
    move(local, name, 1)
    claim = EventLog.claim

    def repaired_first(log: EventLog, event: Event) -> bool:
        assert recovery.repair(local.client, name) == [
            "promote 2 → production was not completed; now superseded"
        ]
        return claim(log, event)

    monkeypatch.setattr(EventLog, "claim", repaired_first)
    with pytest.raises(StageMoved, match="nothing was moved"):
        move(local, name, 2)
    assert local.holder(name) == 1
    assert recovery.repair(local.client, name) == []


def test_a_rollback_that_was_interrupted_is_completed_and_not_done_twice(
    local: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = local.model(GOOD, EQUAL, GOOD)
    for version in (1, 2, 3):
        move(local, name, version)
    with monkeypatch.context() as patch:
        patch.setattr(moves, "apply", interrupt)
        with pytest.raises(KeyboardInterrupt):
            roll_back(local, name)
    assert local.holder(name) == 3
    assert roll_back(local, name) == 2
    assert local.holder(name) == 2
    assert roll_back(local, name) == 1
    assert roll_back(local, name, to=3) == 3


def test_a_rollback_takes_no_version_of_a_model_that_was_made_again(local: Place) -> None:
    name = local.model(GOOD, EQUAL, GOOD)
    for version in (1, 2):
        move(local, name, version)
    local.client.delete_registered_model(name)
    for version in (EQUAL, GOOD, GOOD):
        local.add(name, version)
    move(local, name, 3)
    with pytest.raises(PromotionError, match="skipped version 2: its digest has changed"):
        roll_back(local, name)


def test_another_spelling_of_the_alias_is_removed(local: Place) -> None:
    name = local.model(GOOD, EQUAL, GOOD)
    local.client.set_registered_model_alias(name, "Production", "3")
    assert move(local, name, 2).previous_version == 3
    assert local.client.search_registered_models(f"name = '{name}'")[0].aliases == {"production": 2}


def test_the_rest_of_a_history_with_an_unreadable_event_is_shown(
    local: Place, caplog: pytest.LogCaptureFixture
) -> None:
    name = local.model(GOOD, EQUAL)
    event = move(local, name, 1).event
    assert event is not None
    experiment = local.client.get_run(event.run_id).info.experiment_id
    local.client.create_run(experiment, tags={"kind": "event", "content": "no JSON"})
    assert events(local, name) == [("promote", "applied", 1)]
    assert "is not an event of registry-tools" in caplog.text


def test_a_text_that_does_not_fit_is_refused_before_anything_is_recorded(local: Place) -> None:
    name = local.model(GOOD, EQUAL)
    with pytest.raises(PromotionError, match="--actor has 1,001 characters: shorten it to at most 1,000"):
        move(local, name, 1, actor="a" * 1001)
    assert events(local, name) == []
    event = move(local, name, 1, actor="😀" * 1000).event
    assert event is not None
    assert len(local.client.get_run(event.run_id).data.tags["content"]) < 8_000
