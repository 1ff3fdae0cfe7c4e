"""The tags on which a move depends are written by the store, or stamped with the user."""

from __future__ import annotations

import json

import pytest

from registry_tools.policy.records import Approval, Held
from registry_tools.policy.tag_names import approval_tag
from tests.support.gated import Gated, digest_of, refusal


@pytest.mark.parametrize("key", ["held.production", "held.staging", "registered_by"])
def test_only_the_store_writes_how_a_version_was_registered_and_moved(gated: Gated, key: str) -> None:
    name = gated.model()
    for user in ("trainer", "ana", "owner"):
        assert refusal(gated.tag(user, name, 1, key, "x")) == f"only the registry writes {key}"
        assert refusal(gated.untag(user, name, 1, key)) == f"only the registry writes {key}"
    assert gated.get(name, 1)["tags"]["registered_by"] == "trainer"


def test_only_the_store_counts_the_moves(gated: Gated) -> None:
    name = gated.model()
    tag = {"name": name, "key": "head.production"}
    answer = gated.call("owner", "POST", "registered-models/set-tag", value="0", **tag)
    assert refusal(answer) == "only the registry writes head.production"
    answer = gated.call("owner", "DELETE", "registered-models/delete-tag", **tag)
    assert refusal(answer) == "only the registry writes head.production"
    other = f"{name}-other"
    tags = [{"key": "head.production", "value": "7"}, {"key": "team", "value": "a"}]
    made = gated.done("trainer", "POST", "registered-models/create", name=other, tags=tags)
    assert made["registered_model"]["tags"] == [{"key": "team", "value": "a"}]


def test_a_new_version_keeps_no_forged_evidence(approved: Gated) -> None:
    name = approved.model()
    envelope = approved.verdict(name, 1)
    held = Held(1, envelope, digest_of("one"), "ana", "2026-01-01T00:00:00+00:00", "promote", "")
    fields = {"digest": digest_of("one"), "head": 0, "verdict": None, "by": "ana"}
    approval = Approval(reason="", decision="approve", **fields)  # type: ignore[arg-type]
    forged = {
        "held.production": held.to_text(),
        approval_tag("production", "ana"): approval.to_text(),
        "request.production": "{}",
        "force.production": "{}",
        "registered_by": "ben",
        "purpose": "demo",
    }
    version = approved.version(name, "one", **forged)
    expected = {"artifact_digest": digest_of("one"), "purpose": "demo", "registered_by": "trainer"}
    assert approved.get(name, version)["tags"] == expected
    assert "it has no verdict" in refusal(approved.move("oncall", name, version))


def test_an_approval_is_stamped_and_is_written_by_its_approver_only(approved: Gated) -> None:
    name = approved.model()
    approved.evaluate(name, 1)
    assert approved.decide("ben", name, 1, by="ana", at="2020-01-01").status_code == 200
    key = approval_tag("production", "ben")
    approval = Approval.from_text(approved.get(name, 1)["tags"][key])
    assert approval.by == "ben"
    assert approval.at is not None
    assert approval.at > "2026"
    text = approval.to_text()
    for user in ("ana", "trainer", "owner"):
        assert f"is not the approval of {user}" in refusal(approved.tag(user, name, 1, key, text))
        assert f"is not the approval of {user}" in refusal(approved.untag(user, name, 1, key))
    own = approval_tag("production", "trainer")
    assert "does not name trainer as an approver" in refusal(approved.tag("trainer", name, 1, own, text))
    mixed = key.replace("production", "Production")
    assert "does not protect a stage 'Production'" in refusal(approved.tag("ben", name, 1, mixed, text))


def test_a_request_is_stamped(approved: Gated) -> None:
    name = approved.model()
    assert approved.request("trainer", name, 1, by="ana").status_code == 200
    request = json.loads(approved.get(name, 1)["tags"]["request.production"])
    assert request["by"] == "trainer"


def test_force_needs_the_right_a_reason_and_the_present_head(gated: Gated) -> None:
    name = gated.model()
    for user in ("trainer", "ben", "owner"):
        assert f"does not allow {user} to force" in refusal(gated.force(user, name, 1))
    assert "needs a reason" in refusal(gated.force("ana", name, 1, reason=" "))
    assert "has moved 0 times, not 5" in refusal(gated.force("ana", name, 1, head=5))
    assert gated.force("ana", name, 1, by="ben").status_code == 200
    assert json.loads(gated.get(name, 1)["tags"]["force.production"])["by"] == "ana"


@pytest.mark.parametrize("value", ["", "x", "[]", "{}", '{"reason": 1}', '{"decision": "approve"}'])
def test_values_that_are_no_records_are_refused(approved: Gated, value: str) -> None:
    name = approved.model()
    for key in ("request.production", "force.production", approval_tag("production", "ben")):
        assert f"{key}: the " in refusal(approved.tag("ben", name, 1, key, value))
    for key in ("request.", "approval.production", "force.canary", "approval."):
        assert refusal(approved.tag("ben", name, 1, key, value))


@pytest.mark.parametrize("key", ["artifact_digest", "evidence_digest", "onnx_digest"])
def test_digests_are_written_once_while_the_model_has_a_protected_stage(gated: Gated, key: str) -> None:
    name = gated.model()
    assert gated.tag("trainer", name, 1, key, digest_of("first")).status_code == 200
    assert gated.tag("trainer", name, 1, key, digest_of("one")).status_code == 200
    gated.promote(name, 1)
    assert gated.tag("trainer", name, 1, key, digest_of("one")).status_code == 200  # a test of the rights
    for version in (1, 2):
        gated.tag("trainer", name, version, key, digest_of("one"))
        answer = gated.tag("owner", name, version, key, digest_of("first"))
        assert f"{key} of version {version} of {name} cannot change" in refusal(answer)
        answer = gated.untag("owner", name, version, key)
        assert f"{key} of version {version} of {name} cannot change" in refusal(answer)


def test_other_tags_are_free(gated: Gated) -> None:
    name = gated.model()
    for key in ("purpose", "held", "heldish.x", "request", "head.production", "verdict.production"):
        assert gated.tag("trainer", name, 1, key, "x").status_code == 200
        assert gated.untag("trainer", name, 1, key).status_code == 200
