"""The two ways without a new verdict: a named user forces a stage, or rolls it back."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

import pytest

from registry_tools.errors import MoveRefused
from registry_tools.policy import tag_names
from registry_tools.policy.decision import Grant, Move, decide, missing
from registry_tools.policy.definition import Policy
from registry_tools.policy.records import Force, Held
from tests.support.policies import MODEL_DIGEST, NOW, STAGE, make_policy, move_with, signed, statement_for

POLICY = make_policy()
FORCE, HELD = tag_names.force_tag(STAGE), tag_names.held_tag(STAGE)
DAY = timedelta(days=1)


def refusal(move: Move, policy: Policy = POLICY) -> str:
    with pytest.raises(MoveRefused) as caught:
        decide(policy, move)
    assert str(caught.value).endswith(missing(policy, move)[0])
    return str(caught.value)


def force(**changes: Any) -> dict[str, str]:
    return {FORCE: Force(**{"reason": "outage", "head": 4, "by": "carol", "at": "now"} | changes).to_text()}


def test_a_named_user_may_force_any_version_with_a_reason() -> None:
    assert decide(POLICY, move_with(force(), digests={"model": None})) == Grant("force", None, "outage")
    assert missing(POLICY, move_with(force())) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"by": "ana"}, "its force does not count: ana may not force it; the policy names carol"),
        ({"by": None}, "an unknown user may not force it"),
        ({"head": 3}, "it was given for move 4 of the stage, and the next is 5"),
        ({"reason": " "}, "its force does not count: it has no reason"),
    ],
)
def test_another_force_is_refused(changes: dict[str, Any], message: str) -> None:
    assert message in refusal(move_with(force(**changes)))


def test_a_damaged_force_is_refused() -> None:
    assert "the tag force is not valid: head: Field required" in refusal(
        move_with({FORCE: '{"reason": "x"}'})
    )


def held(**changes: Any) -> dict[str, str]:
    envelope = signed(statement_for(POLICY, head=1, champion=None, policy="e" * 64, expires_at=NOW - 9 * DAY))
    record = {
        "head": 2,
        "envelope": envelope,
        "digest": MODEL_DIGEST,
        "by": "eve",
        "at": "then",
        "action": "promote",
        "reason": "",
    }
    return {HELD: Held(**record | changes).to_text()}


ONCALL = move_with(held(), user="oncall")


def test_a_rollback_needs_a_role_and_no_fresh_verdict() -> None:
    grant = decide(POLICY, ONCALL)
    assert grant.action == "rollback"
    assert grant.envelope is not None
    frozen = make_policy(freeze=[{"from": NOW, "until": NOW + DAY, "reason": "holidays"}])
    assert decide(frozen, ONCALL).action == "rollback"


@pytest.mark.parametrize(
    ("move", "message"),
    [
        (move_with(held()), "a rollback to it is refused: eve may not roll back; the policy names oncall"),
        (dataclasses.replace(ONCALL, user=None), "an unknown user may not roll back"),
        (
            move_with(held(envelope=None, action="force"), user="oncall"),
            "it held the stage without a verdict",
        ),
        (
            move_with(held(envelope="{}"), user="oncall"),
            "the verdict with which it held the stage does not count",
        ),
        (dataclasses.replace(ONCALL, digests={"model": "c" * 64}), "it is about the model digest aaa"),
        (dataclasses.replace(ONCALL, tags={HELD: "{}"}), "the tag held is not valid: head: Field required"),
    ],
)
def test_another_rollback_is_refused(move: Move, message: str) -> None:
    assert message in refusal(move)


def test_a_held_record_is_not_a_verdict_for_another_version() -> None:
    other = signed(statement_for(POLICY, version=2))
    assert "it is about the version 2, not 3" in refusal(move_with(held(envelope=other), user="oncall"))


def test_a_rollback_needs_a_key_that_the_policy_still_names() -> None:
    policy = make_policy(evaluators=["nightly"])
    assert "no key of the evaluators signed the envelope" in refusal(ONCALL, policy)
