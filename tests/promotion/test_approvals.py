"""Requests, approvals and promotions by the commands, on a gated server with several users."""

from __future__ import annotations

import json
from typing import Any

import pytest
from mlflow import MlflowClient

import registry_tools
from registry_tools.cli.main import main
from registry_tools.errors import PromotionError
from registry_tools.evaluation.verdict import GateResult, Verdict
from registry_tools.policy import tag_names
from registry_tools.promotion import promote, rollback
from tests.promotion.conftest import Run, history, policy
from tests.support.gated import Gated, write_policy
from tests.support.tracking_servers import signed_in


def shown(events: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(each["action"], each["outcome"], each["version"], each["actor"]) for each in events]


def test_a_requested_and_approved_version_is_promoted(gated: Gated, run: Run) -> None:
    name = gated.model()
    to = ("--to", "production", *policy(gated))
    code, _, err = run("trainer", "request", f"{name}/1", *to, "--reason", "better")
    assert (code, "has no verdict for production; run: registry-tools evaluate" in err) == (1, True)
    gated.evaluate(name, 1)
    code, out, err = run("trainer", "promote", f"{name}/1", *to)
    assert code == 3
    assert "nobody requested it" in out
    assert "2 more" not in err
    code, out, _ = run("trainer", "request", f"{name}/1", *to, "--reason", "better")
    assert code == 0
    assert f"{name}/1 for production by trainer" in out
    assert "it has 0 of 1 approvals; ana, ben may run: registry-tools approve" in out
    code, out, _ = run("ben", "requests", name, "--json", *policy(gated))
    [found] = json.loads(out)
    assert (found["requester"], found["reason"], found["version"]) == ("trainer", "better", 1)
    assert found["verdict"]["gates"][0]["gate"] == "integrity"
    code, out, _ = run("ben", "approve", f"{name}/1", *to, "--reason", "read the report")
    assert (code, "missing" in out) == (0, False)
    code, out, _ = run("trainer", "promote", f"{name}/1", *to, "--dry-run")
    assert (code, "would move" in out) == (0, True)
    code, out, _ = run("trainer", "promote", f"{name}/1", *to, "--reason", "release")
    assert (code, "moved" in out) == (0, True)
    assert gated.aliases(name) == {"production": 1}
    events = history(run, name)
    assert shown(events) == [
        ("promote", "refused", 1, "trainer"),
        ("request", "recorded", 1, "trainer"),
        ("approve", "recorded", 1, "ben"),
        ("promote", "applied", 1, "trainer"),
    ]
    assert [gate["gate"] for gate in events[-1]["gates"]] == ["integrity"]
    code, out, _ = run("ben", "requests", name, *policy(gated))
    assert (code, len(out.splitlines())) == (0, 1)


def test_requester_and_registrar_may_not_approve_and_the_policy_names_the_approvers(
    gated: Gated, run: Run
) -> None:
    name = gated.model()  # registered by trainer
    gated.evaluate(name, 1)
    to = ("--to", "production", *policy(gated))
    assert run("ana", "request", f"{name}/1", *to, "--reason", "better")[0] == 0
    code, _, err = run("ana", "approve", f"{name}/1", *to)
    assert (code, "ana requested" in err) == (3, True)
    code, _, err = run("trainer", "approve", f"{name}/1", *to)
    assert (code, "trainer registered" in err) == (3, True)
    code, _, err = run("oncall", "approve", f"{name}/1", *to)
    assert (code, "the policy does not name oncall as an approver" in err) == (3, True)
    assert run("ben", "approve", f"{name}/1", *to)[0] == 0
    assert run("trainer", "promote", f"{name}/1", *to)[0] == 0


@pytest.mark.slow
def test_a_rejection_stops_the_promotion_until_its_user_approves(gated: Gated, run: Run) -> None:
    name = gated.model()
    gated.evaluate(name, 1)
    to = ("--to", "production", *policy(gated))
    assert run("trainer", "request", f"{name}/1", *to, "--reason", "better")[0] == 0
    assert run("ana", "approve", f"{name}/1", *to)[0] == 0
    code, out, _ = run("ben", "reject", f"{name}/1", *to, "--reason", "wrong labels")
    assert (code, "ben rejected it: wrong labels" in out) == (0, True)
    assert run("trainer", "promote", f"{name}/1", *to)[0] == 3
    # The server refuses as well, if the client has no policy.
    code, _, err = run("trainer", "unset", name, "--stage", "production", "--reason", "x")
    assert (code, "holds no version" in err) == (1, True)
    assert gated.move("trainer", name, 1).status_code == 403
    assert run("ben", "approve", f"{name}/1", *to)[0] == 0
    assert run("trainer", "promote", f"{name}/1", *to)[0] == 0
    assert [event["action"] for event in history(run, name)] == [
        "request", "approve", "reject", "promote", "approve", "promote",
    ]  # fmt: skip


@pytest.mark.slow
def test_an_approval_is_void_after_another_evaluation(gated: Gated, run: Run) -> None:
    name = gated.model()
    gated.evaluate(name, 1)
    to = ("--to", "production", *policy(gated))
    assert run("trainer", "request", f"{name}/1", *to, "--reason", "better")[0] == 0
    assert run("ana", "approve", f"{name}/1", *to)[0] == 0
    gated.evaluate(name, 1)
    code, out, _ = run("trainer", "promote", f"{name}/1", *to)
    assert (code, "its request is void" in out, "it has 0 of 1 approvals" in out) == (3, True, True)
    code, out, _ = run("ana", "requests", name, *policy(gated))
    assert "its request is void" in out
    code, _, err = run("ana", "approve", f"{name}/1", *to)
    assert (code, "nobody requested" in err) == (1, True)


@pytest.mark.slow
def test_a_rolled_back_version_does_not_return_with_its_old_verdict(
    gated: Gated, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed = Verdict((GateResult("none", True, "not evaluated here"),))
    monkeypatch.setattr(rollback, "evaluate_rollback", lambda *_: passed)
    monkeypatch.setattr(promote, "evaluate", lambda *_: passed)
    write_policy(gated.folder, rollback=["oncall"])
    name = gated.model()
    to = ("--to", "production", *policy(gated))
    for version in (1, 2):
        gated.evaluate(name, version)
        assert run("trainer", "promote", f"{name}/{version}", *to)[0] == 0
    code, _, err = run("trainer", "rollback", name, "--reason", "worse")
    assert (code, "trainer may not roll back; the policy names oncall" in err) == (3, True)
    assert gated.aliases(name) == {"production": 2}
    assert run("oncall", "rollback", name, "--reason", "worse")[0] == 0
    assert gated.aliases(name) == {"production": 1}
    code, out, _ = run("trainer", "promote", f"{name}/2", *to)
    assert (code, "is for move 2 of the stage, and the next is 4" in out) == (3, True)
    code, _, err = run("trainer", "promote", f"{name}/2", "--to", "production", "--force", "--reason", "x")
    assert (code, "name the policy of the registry" in err) == (3, True)
    events = history(run, name)
    assert [(each["action"], each["outcome"]) for each in events] == [
        ("promote", "applied"), ("promote", "applied"), ("rollback", "failed"), ("rollback", "applied"),
        ("promote", "refused"), ("promote", "failed"),
    ]  # fmt: skip
    assert gated.aliases(name) == {"production": 1}


def test_a_forced_move_needs_the_right_to_it_and_comes_first_in_the_history(gated: Gated, run: Run) -> None:
    name = gated.model()
    forced = ("--to", "production", *policy(gated), "--force", "--reason", "outage")
    code, _, err = run("ben", "promote", f"{name}/1", *forced)
    assert (code, "does not allow ben to force production" in err) == (3, True)
    assert history(run, name) == []
    code, out, _ = run("ana", "promote", f"{name}/1", *forced)
    assert (code, gated.aliases(name)) == (0, {"production": 1})
    code, _, err = run("ana", "unset", name, "--stage", "production", "--reason", "bad")
    assert (code, gated.aliases(name)) == (3, {"production": 1})
    assert run("ana", "unset", name, "--stage", "production", "--force", "--reason", "bad")[0] == 0
    assert gated.aliases(name) == {}
    _, out, _ = run("ben", "history", name)
    first, second, *_ = out.splitlines()
    assert first.startswith("production was forced to no version by ana at ")
    assert second.startswith("production was forced to version 1 by ana at ")
    assert second.endswith(": outage")


@pytest.mark.slow
def test_a_wrong_policy_file_is_refused_before_anything_is_recorded(gated: Gated, run: Run) -> None:
    name = gated.model()
    gated.evaluate(name, 1)
    to = ("--to", "production", "--policy", "typo.yaml")
    code, _, err = run("trainer", "request", f"{name}/1", *to, "--reason", "better")
    assert (code, "typo.yaml: No such file or directory; name another file with --policy" in err) == (1, True)
    assert tag_names.request_tag("production") not in gated.get(name, 1)["tags"]


def test_a_request_counts_when_the_history_cannot_be_written(
    gated: Gated, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    name = gated.model()
    gated.evaluate(name, 1)
    client = MlflowClient(gated.uri)
    with signed_in("trainer"):
        experiment = client.create_experiment(f"{name}-promotions")
        client.delete_experiment(experiment)
    code, out, err = run("trainer", "request", f"{name}/1", "--to", "production", "--reason", "better")
    assert (code, "requested" in out, "has no event of this" in caplog.text) == (0, True, True), err


def test_options_of_the_gates_contradict_the_policy(gated: Gated, run: Run) -> None:
    name = gated.model()
    code, _, err = run(
        "trainer", "promote", f"{name}/1", "--to", "production", *policy(gated), "--min", "a=1"
    )
    assert code == 2
    assert "the policy of team-registry decides the gates of production: leave out --min" in err
    with pytest.raises(PromotionError, match="leave out minimum"), signed_in("trainer"):
        registry_tools.promote(
            f"{name}/1", "production", minimum={"a": 1}, policy=gated.policy, tracking_uri=gated.uri
        )


@pytest.mark.slow
def test_a_move_by_another_tool_is_recorded_with_its_user_and_its_reason(gated: Gated, run: Run) -> None:
    name = gated.model()
    gated.evaluate(name, 1)
    to = ("--to", "production", *policy(gated))
    assert run("trainer", "request", f"{name}/1", *to, "--reason", "better")[0] == 0
    assert run("ana", "approve", f"{name}/1", *to)[0] == 0
    assert gated.move("ben", name, 1).status_code == 200
    gated.force("ana", name, 2)
    assert run("trainer", "repair", name)[0] == 0
    assert gated.move("oncall", name, 2).status_code == 200
    assert run("trainer", "repair", name)[0] == 0
    first, second = history(run, name)[-2:]
    assert (first["action"], first["actor"], first["external"], first["forced"]) == (
        "promote", "ben", True, False,
    )  # fmt: skip
    assert first["reason"].startswith("better; by another tool at ")
    assert (second["action"], second["actor"], second["version"], second["forced"]) == (
        "promote", "oncall", 2, True,
    )  # fmt: skip


def test_a_registry_that_is_not_gated_takes_no_requests(
    store: str, gated: Gated, capsys: pytest.CaptureFixture[str]
) -> None:
    client = MlflowClient(store)
    client.create_registered_model("iris")
    client.create_model_version("iris", "file:///none", tags={"verdict.production": "{}"})
    assert main(["request", "iris/1", "--to", "production", "--reason", "better"]) == 1
    assert "is not a gated registry" in capsys.readouterr().err
    assert "request.production" not in client.get_model_version("iris", "1").tags
