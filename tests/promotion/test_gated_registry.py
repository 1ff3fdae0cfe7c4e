"""Bad days of a gated registry: two promoters, a restart, other policies, lost rights, moves in the UI."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient

import registry_tools
from pipeline.params.definitions import TrainParams
from pipeline.training.train import train
from registry_tools.errors import AccessDenied, MoveRefused, PromotionError
from registry_tools.evaluation.gate_options import GateOptions
from registry_tools.evaluation.verdict import GateResult, Verdict
from registry_tools.mlflow_store import registry, stages
from registry_tools.policy.policy_file import load_policy
from registry_tools.promotion import deletion, moves, promote
from registry_tools.promotion import history as histories
from registry_tools.promotion.event import OPEN, Event
from registry_tools.refs import ModelRef
from tests.promotion.conftest import Run, history, policy
from tests.support.constants import LONG
from tests.support.gated import Gated, add_users, gated_server, write_policy
from tests.support.tracking_servers import signed_in

_MODELS = ("logistic_regression", "svc")


def outcomes(run: Run, name: str) -> list[tuple[str, str, int | None]]:
    return [(event["action"], event["outcome"], event["version"]) for event in history(run, name)]


@pytest.mark.slow
def test_a_trained_version_goes_the_whole_way(
    gated: Gated, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = gated.model("none")  # trainer may write the models and the history
    monkeypatch.setenv("MLFLOW_TRACKING_URI", gated.uri)
    to = ("--to", "production", *policy(gated))
    with signed_in("trainer"):
        first, second = (train(TrainParams(name=name, plots=False, model=each)).version for each in _MODELS)
    for version in (first, second):
        ref = f"{name}/{version}"
        code, out, err = run("trainer", "evaluate", ref, *to, "--key", str(gated.folder / "ci.pem"))
        assert (code, "signed" in out) == (0, True), err
        assert run("trainer", "request", ref, *to, "--reason", "better")[0] == 0
        assert run("ben", "approve", ref, *to)[0] == 0
        assert run("trainer", "promote", ref, *to)[0] == 0
        assert gated.aliases(name)["production"] == version
        assert gated.legacy(name) == [version]
    code, out, err = run("ana", "rollback", name, "--reason", "worse")
    assert (code, gated.aliases(name)["production"]) == (0, first), err
    code, out, _ = run("trainer", "promote", f"{name}/{second}", *to)
    assert (code, "and the next is 4" in out) == (3, True)
    with signed_in("trainer"):
        assert registry_tools.load_model(f"{name}@production").info.version == first


def test_of_two_promoters_at_once_one_wins_and_the_other_is_told(gated: Gated, run: Run) -> None:
    write_policy(gated.folder)
    rules, name, told = load_policy(gated.policy), gated.model(), []
    for version in (1, 2):
        gated.evaluate(name, version)

    def move(version: int) -> None:
        try:
            ref = ModelRef(name, version=version)
            promote.promote(MlflowClient(gated.uri), ref, "production", GateOptions(), policy=rules)
        except PromotionError as error:
            told.append((version, str(error)))

    threads = [threading.Thread(target=move, args=(version,)) for version in (1, 2)]
    with signed_in("trainer"):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=120)
    [(loser, message)] = told
    assert gated.aliases(name) == {"production": 3 - loser}
    assert "production" in message
    assert OPEN not in {event["outcome"] for event in history(run, name)}
    assert run("trainer", "repair", name)[1] == "nothing to repair\n"


def test_a_move_in_the_ui_between_claim_and_alias_is_not_undone(
    gated: Gated, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_policy(gated.folder)
    name = gated.model("one", "two", "three")
    gated.promote(name, 1)
    assert run("oncall", "repair", name)[0] == 0
    for version in (2, 3):
        gated.evaluate(name, version)
    move_alias = stages.move_alias

    def overtaken(client: Any, *arguments: Any) -> None:
        monkeypatch.setattr(stages, "move_alias", move_alias)
        assert gated.move("ben", name, 3).status_code == 200
        move_alias(client, *arguments)

    monkeypatch.setattr(stages, "move_alias", overtaken)
    # This user may roll back to version 1, which the event log knows as the holder.
    code, _, err = run("oncall", "promote", f"{name}/2", "--to", "production", *policy(gated))
    assert (code, "is for move 2 of the stage, and the next is 3" in err) == (3, True)
    assert gated.aliases(name) == {"production": 3}
    assert run("oncall", "repair", name)[0] == 0
    assert gated.aliases(name) == {"production": 3}
    assert outcomes(run, name) == [
        ("promote", "applied", 1), ("promote", "failed", 2), ("promote", "applied", 3),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("user", "action"), [("oncall", "rollback"), pytest.param("trainer", "promote", marks=pytest.mark.slow)]
)
def test_only_its_own_client_moves_the_stage_back_for_an_interrupted_event(
    user: str, action: str, gated: Gated, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    # oncall may roll back and trainer may not, so neither may decide about the event of the other.
    name = model_with_two_moves(gated)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with signed_in(user), monkeypatch.context() as patch:
        patch.setattr(moves, "apply", interrupt)
        with pytest.raises(KeyboardInterrupt):
            move_by_command(gated, name, action)
    other = "trainer" if user == "oncall" else "oncall"
    promotion = ("promote", f"{name}/3", "--to", "production", *policy(gated))
    code, _, err = run(other, *promotion)
    assert (code, f"{action} 1 → production by {user} is in progress or was interrupted" in err) == (1, True)
    assert (gated.aliases(name), outcomes(run, name)[-1]) == ({"production": 2}, (action, "open", 1))
    assert "left open; now failed" in run(other, "repair", name)[1]
    assert gated.aliases(name) == {"production": 2}
    assert run(other, *promotion)[0] == 0
    assert gated.aliases(name) == {"production": 3}


def test_a_rollback_is_completed_while_another_user_promotes(
    gated: Gated, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = model_with_two_moves(gated)
    move_alias, codes = stages.move_alias, []

    def overtaken(client: Any, *arguments: Any) -> None:
        monkeypatch.setattr(stages, "move_alias", move_alias)
        codes.append(run("trainer", "promote", f"{name}/3", "--to", "production", *policy(gated))[0])
        move_alias(client, *arguments)

    monkeypatch.setattr(stages, "move_alias", overtaken)
    with signed_in("oncall"):
        assert move_by_command(gated, name, "rollback").outcome == "applied"
    assert (codes, gated.aliases(name)) == ([1], {"production": 1})
    assert run("oncall", "repair", name)[1] == "nothing to repair\n"


def model_with_two_moves(gated: Gated) -> str:
    """Return a model whose production moved to 1 and then to 2; version 3 has a verdict for the next move."""
    write_policy(gated.folder)
    name = gated.model("one", "two", "three")
    gated.promote(name, 1)
    gated.promote(name, 2)
    gated.evaluate(name, 3)
    return name


def move_by_command(gated: Gated, name: str, action: str) -> Event:
    """Move production to version 1 as the commands do, without their gates."""
    client = MlflowClient(gated.uri)
    state = moves.open_stage(client, name, "production", None)
    version = registry.find_version(client, ModelRef(name, version=1))
    return state.move(state.draft(action, version, "worse", Verdict(())))


@LONG
@pytest.mark.slow
def test_the_next_command_completes_a_move_that_a_restart_interrupted(
    empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with gated_server(empty_database, tmp_path) as running:
        add_users(running.uri)
        name = running.model()
        running.evaluate(name, 1)
        with signed_in("trainer"), monkeypatch.context() as patch:
            patch.setattr(moves, "apply", interrupt)
            with pytest.raises(KeyboardInterrupt):
                registry_tools.promote(
                    f"{name}/1", "production", policy=running.policy, tracking_uri=running.uri
                )
        assert running.aliases(name) == {}
    with gated_server(empty_database, tmp_path) as running, signed_in("oncall"):
        with pytest.raises(PromotionError, match="already holds"):
            registry_tools.promote(f"{name}/1", "production", policy=running.policy, tracking_uri=running.uri)
        assert running.aliases(name) == {"production": 1}
        [event] = histories.list_events(MlflowClient(running.uri), name)
        assert (event.outcome, event.actor) == ("applied", "trainer")


@LONG
@pytest.mark.slow
def test_an_approver_needs_no_more_than_edit(
    empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed = Verdict((GateResult("none", True, "not evaluated here"),))
    monkeypatch.setattr(promote, "evaluate", lambda *_: passed)
    approvals = {"count": 1, "by": ["ana", "ben"]}
    with gated_server(empty_database, tmp_path, permission="EDIT") as running:
        add_users(running.uri)
        write_policy(tmp_path, approvals=approvals)
        name = running.model()
        assert running.untag("ben", name, 1, "other").text == "Permission denied"
        ref, where = f"{name}/1", {"to": "production", "tracking_uri": running.uri}
        # A failed event has a place in the chain, but is no move of the stage.
        with signed_in("trainer"), pytest.raises(MoveRefused, match="it has no verdict"):
            registry_tools.promote(ref, **where)
        running.evaluate(name, 1)
        with signed_in("trainer"):
            registry_tools.request(ref, reason="better", **where)
        with signed_in("ben"):
            assert registry_tools.approve(ref, **where).head == 0
            # Only MANAGE deletes a version or a tag. A refused deletion must not prevent the promotion.
            with pytest.raises(AccessDenied):
                deletion.delete(MlflowClient(running.uri), ModelRef(name, version=1))
        with signed_in("trainer"):
            assert registry_tools.promote(ref, policy=running.policy, **where).version == 1
        assert running.aliases(name) == {"production": 1}


def test_the_policy_of_the_server_decides_and_the_refusal_says_so(
    gated: Gated, run: Run, tmp_path: Path
) -> None:
    content = yaml.safe_load(gated.policy.read_text())
    content["models"]["iris*"]["production"] |= {"approvals": {"count": 0}}
    other = tmp_path / "registry.yaml"
    other.write_text(yaml.safe_dump(content))
    name, rules = gated.model(), load_policy(other).stage("iris", "production")
    assert rules is not None
    gated.evaluate(name, 1, policy=rules.digest)
    to = ("--to", "production", "--policy")
    code, _, err = run("trainer", "promote", f"{name}/1", *to, str(other))
    assert code == 3
    assert "is for other rules than those in the policy of the registry" in err
    assert err.endswith("your copy of the policy allows the move, but that of the registry decides")
    code, out, _ = run("trainer", "promote", f"{name}/1", *to, str(gated.policy))
    assert (code, "nobody requested it" in out) == (3, True)
    assert gated.aliases(name) == {}
    assert outcomes(run, name) == [("promote", "failed", 1), ("promote", "refused", 1)]


def test_an_approver_who_loses_the_right_before_the_move_does_not_count(gated: Gated, run: Run) -> None:
    name, to = gated.model(), ("--to", "production", *policy(gated))
    gated.evaluate(name, 1)
    assert run("trainer", "request", f"{name}/1", *to, "--reason", "better")[0] == 0
    assert run("ben", "approve", f"{name}/1", *to)[0] == 0
    write_policy(gated.folder, approvals={"count": 1, "by": ["ana"]}, rollback=["oncall", "ana"])
    assert run("trainer", "promote", f"{name}/1", *to)[0] == 3
    assert gated.move("trainer", name, 1).status_code == 403
    assert gated.aliases(name) == {}


def test_a_broken_policy_of_the_server_moves_nothing_and_fails_the_event(
    gated: Gated, run: Run, tmp_path: Path
) -> None:
    write_policy(gated.folder)
    good = tmp_path / "registry.yaml"
    good.write_text(gated.policy.read_text())
    name = gated.model()
    gated.evaluate(name, 1)
    gated.policy.write_text("registry: [")
    code, _, err = run("trainer", "promote", f"{name}/1", "--to", "production", "--policy", str(good))
    assert (code, str(gated.policy) in err) == (3, True)
    assert gated.aliases(name) == {}
    assert outcomes(run, name) == [("promote", "failed", 1)]
