"""The forms of the console: each acts with the rights of the user who sent it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from registry_tools.policy import tag_names
from registry_tools.policy.records import Approval
from tests.console.conftest import GatedConsole
from tests.support.consoles import hidden, sign_in, token_of
from tests.support.tracking_servers import account

HOSTILE = "<img src=x onerror=alert(1)>\u202e & \"'"


def candidate(name: str, version: int) -> str:
    return f"/models/{name}/versions/{version}/production"


def send(client: httpx.Client, page: str, action: str, **fields: str) -> httpx.Response:
    """Open the page of a version, and send one of its forms."""
    shown = client.get(page).text
    given = {"csrf": token_of(shown), "seen": hidden(shown, "seen"), **fields}
    return client.post(f"{page}/{action}", data=given)


def requested(console: GatedConsole, reason: str = "better") -> str:
    """Return a new model whose version 1 has a verdict, and was requested by trainer."""
    name = console.gated.model("one", "two")
    console.gated.evaluate(name, 1)
    with sign_in(console.address, "trainer") as trainer:
        response = send(trainer, candidate(name, 1), "request", reason=reason)
        assert response.status_code == 303, response.text
    return name


def approval(console: GatedConsole, name: str, user: str) -> Approval:
    return Approval.from_text(console.gated.get(name, 1)["tags"][tag_names.approval_tag("production", user)])


def move(client: httpx.Client, name: str, action: str, **fields: str) -> httpx.Response:
    page = client.get(f"/models/{name}/stages/production").text
    data = {"csrf": token_of(page), "holder": hidden(page, "holder"), "reason": "r", **fields}
    return client.post(f"/models/{name}/stages/production/{action}", data=data)


def test_a_request_is_approved_by_another_user_and_then_promoted(console: GatedConsole) -> None:
    name = requested(console, "better data")
    with sign_in(console.address, "ben") as ben, sign_in(console.address, "trainer") as trainer:
        assert "better data" in ben.get("/requests").text
        shown = ben.get(candidate(name, 1)).text
        assert "0 of 1 approvals" in shown
        assert "✓ passed" in shown
        assert move(trainer, name, "promote", version="1").status_code == 403
        assert console.gated.aliases(name) == {}

        response = send(ben, candidate(name, 1), "decide", decision="approve", reason="read it")
        assert response.headers["Location"] == candidate(name, 1)
        assert "You approved version 1" in ben.get(candidate(name, 1)).text
        assert "You approved" not in ben.get(candidate(name, 1)).text  # shown once
        assert "All conditions are met" in trainer.get(candidate(name, 1)).text

        response = move(trainer, name, "promote", version="1")
        assert response.status_code == 303, response.text
        assert console.gated.aliases(name)["production"] == 1
        history = trainer.get(f"/models/{name}/stages/production").text
        assert "read it" in history
        assert "ben" in history
        assert name not in ben.get("/requests").text


def test_a_rejection_needs_a_reason_and_stops_the_promotion(console: GatedConsole) -> None:
    name = requested(console)
    with sign_in(console.address, "ana") as ana:
        assert send(ana, candidate(name, 1), "decide", decision="reject", reason=" ").status_code == 409
        assert send(ana, candidate(name, 1), "decide", decision="maybe", reason="x").status_code == 400
        assert send(ana, candidate(name, 1), "decide", decision="reject", reason="bias").status_code == 303
        assert "ana rejected it: bias" in ana.get(candidate(name, 1)).text
    assert approval(console, name, "ana").decision == "reject"


def test_evidence_that_changed_since_the_page_was_opened_is_not_approved(console: GatedConsole) -> None:
    name = requested(console)
    with sign_in(console.address, "ana") as ana:
        shown = ana.get(candidate(name, 1)).text
        console.gated.evaluate(name, 1)  # another verdict
        fields = {"csrf": token_of(shown), "seen": hidden(shown, "seen"), "decision": "approve", "reason": ""}
        response = ana.post(f"{candidate(name, 1)}/decide", data=fields)
        assert response.status_code == 409
        assert "changed since you opened the page" in response.text
    tags = console.gated.get(name, 1)["tags"]
    assert tag_names.approval_tag("production", "ana") not in tags


def test_a_user_without_the_right_is_refused_by_the_registry(console: GatedConsole) -> None:
    name = requested(console)
    with sign_in(console.address, "trainer") as trainer:
        page = trainer.get(candidate(name, 1)).text
        assert "Approve or reject" not in page
        with sign_in(console.address, "ana") as ana:
            seen = hidden(ana.get(candidate(name, 1)).text, "seen")
        fields = {"csrf": token_of(page), "seen": seen, "decision": "reject", "reason": "no"}
        response = trainer.post(f"{candidate(name, 1)}/decide", data=fields)
        assert response.status_code == 403
        assert "trainer" in response.text
        assert account("trainer")["MLFLOW_TRACKING_PASSWORD"] not in response.text


def test_what_others_wrote_is_escaped(console: GatedConsole) -> None:
    name = requested(console, HOSTILE)
    escaped = "&lt;img src=x onerror=alert(1)&gt;\\u202e &amp; &#34;&#39;"
    with sign_in(console.address, "ana") as ana:
        send(ana, candidate(name, 1), "decide", decision="reject", reason=HOSTILE)
        for path in ("/requests", candidate(name, 1), f"/models/{name}/stages/production"):
            page = ana.get(path).text
            assert escaped in page, path
            assert "<img" not in page


@pytest.mark.slow
def test_users_who_act_at_the_same_time_are_not_mixed(console: GatedConsole) -> None:
    names = [requested(console) for _ in range(3)]
    with ExitStack() as open_clients:
        clients = {
            user: open_clients.enter_context(sign_in(console.address, user)) for user in ("ana", "ben")
        }

        def approve(work: tuple[str, str]) -> int:
            user, name = work
            for _ in range(3):
                assert f">{user}</span>" in clients[user].get("/").text
            response = send(clients[user], candidate(name, 1), "decide", decision="approve", reason=user)
            return response.status_code

        work = [(user, name) for name in names for user in clients]
        with ThreadPoolExecutor(6) as threads:
            assert list(threads.map(approve, work)) == [303] * 6
    for user, name in work:
        found = approval(console, name, user)
        assert (found.by, found.reason) == (user, user)


@pytest.mark.slow
def test_a_rollback_of_a_stage_that_moved_since_is_refused(console: GatedConsole) -> None:
    name = console.gated.model("one", "two")
    with sign_in(console.address, "oncall") as oncall:
        page = oncall.get(f"/models/{name}/stages/production").text
        fields = {"csrf": token_of(page), "holder": "2", "reason": "errors"}
        response = oncall.post(f"/models/{name}/stages/production/rollback", data=fields)
        assert response.status_code == 409
        assert "at no version, not at version 2 as expected" in response.text
        without = oncall.post(
            f"/models/{name}/stages/production/rollback", data={**fields, "holder": "", "reason": " "}
        )
        assert without.status_code == 400


@pytest.mark.slow
def test_files_that_are_not_behind_the_server_are_not_read(console: GatedConsole, tmp_path: Path) -> None:
    gated, secret = console.gated, tmp_path / "secret"
    (secret / "evidence").mkdir(parents=True)
    made = gated.done(
        "trainer", "POST", "experiments/create", name=tmp_path.name, artifact_location=secret.as_uri()
    )
    run = gated.done("trainer", "POST", "runs/create", experiment_id=made["experiment_id"])["run"]["info"]
    name = gated.model("one")
    body = {"name": name, "source": f"{run['artifact_uri']}/model", "run_id": run["run_id"]}
    gated.done("trainer", "POST", "model-versions/create", **body)
    with sign_in(console.address, "trainer") as trainer:
        response = trainer.get(f"/models/{name}/compare/2/1")
    assert "are not read for other users" in response.text
