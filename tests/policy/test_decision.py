"""The decision on a move: what it allows, and that any change of the evidence takes the permission away."""

from __future__ import annotations

import base64
import dataclasses
import json
from datetime import timedelta
from typing import Any

import pytest

from registry_tools.errors import MoveRefused
from registry_tools.policy import tag_names
from registry_tools.policy.decision import Grant, Move, decide, missing
from registry_tools.policy.definition import Policy
from tests.support.policies import NOW, STAGE, make_policy, move_with, signed, statement_for, tags_for

POLICY = make_policy()
ENVELOPE = signed(statement_for(POLICY))
TAGS = tags_for(ENVELOPE)
GOOD = move_with(TAGS)
VERDICT, REQUEST, FORCE, HELD = (
    tag(STAGE)
    for tag in (tag_names.verdict_tag, tag_names.request_tag, tag_names.force_tag, tag_names.held_tag)
)
BEN = tag_names.approval_tag(STAGE, "ben")


def refusal(move: Move, policy: Policy = POLICY) -> str:
    """Return the message of a refused move, whose first condition is also the first missing one."""
    with pytest.raises(MoveRefused) as caught:
        decide(policy, move)
    text = str(caught.value)
    assert text.startswith("iris version 3 may not enter production: ")
    assert "\n" not in text
    assert text.endswith(missing(policy, move)[0])
    return text


def edited(key: str, **changes: Any) -> dict[str, str]:
    """Return the good tags with other fields in one of the records."""
    return TAGS | {key: json.dumps(json.loads(TAGS[key]) | changes)}


def test_a_good_move_is_a_promotion_with_its_verdict() -> None:
    assert decide(POLICY, GOOD) == Grant("promote", ENVELOPE, "better data")
    assert missing(POLICY, GOOD) == []


def test_a_stage_that_holds_the_version_stays() -> None:
    move = move_with({}, holder=3)
    assert decide(POLICY, move) == Grant("unchanged")
    assert missing(POLICY, move) == []


def test_a_stage_without_rules_may_move() -> None:
    for change in ({"stage": "staging"}, {"model": "wine"}):
        assert decide(POLICY, move_with({}, **change)) == Grant("promote")


def test_without_required_approvals_no_request_is_needed() -> None:
    policy = make_policy(approvals={"count": 0})
    envelope = signed(statement_for(policy))
    assert decide(policy, move_with({VERDICT: envelope}, user=None)) == Grant("promote", envelope)


REFUSED = {"gate": "a", "passed": False, "message": "", "metrics": {}}


def resigned(key: str = "ci", **changes: Any) -> Move:
    """Return the good move with another statement, which is signed and approved."""
    return move_with(tags_for(signed(statement_for(POLICY, **changes), key)))


DAY = timedelta(days=1)
REFUSALS = {
    "no verdict": (
        move_with({}),
        "it has no verdict; run: registry-tools evaluate iris/3 --to production --key",
    ),
    "no digest": (
        move_with(TAGS, digests={"model": None}),
        "no digest of its files; run: registry-tools adopt",
    ),
    "not an envelope": (
        move_with(tags_for("x")),
        "its verdict does not count: the text is not a DSSE envelope",
    ),
    "another key": (resigned("stranger"), "no key of the evaluators signed the envelope"),
    "a key of another stage": (resigned("nightly"), "no key of the evaluators signed the envelope"),
    "another registry": (resigned(registry="other"), "it is about the registry other, not team-registry"),
    "another model": (resigned(model="wine"), "it is about the model wine, not iris"),
    "another version": (resigned(version=2), "it is about the version 2, not 3"),
    "another stage": (resigned(stage="staging"), "it is about the stage staging, not production"),
    "another evaluator": (resigned(evaluator="nightly"), "it is about the evaluator nightly, not ci"),
    "other files": (resigned(model_digest="c" * 64), "it is about the model digest ccc"),
    "other evidence": (resigned(evidence_digest="c" * 64), "it is about the evidence digest ccc"),
    "no evidence": (resigned(evidence_digest=None), "it is about the evidence digest None, not bbb"),
    "not passed": (resigned(passed=False), "its verdict does not count: a gate refused the version"),
    "no gates": (resigned(gates=()), "its verdict does not count: a gate refused the version"),
    "a refusing gate": (resigned(gates=(REFUSED,)), "a gate refused the version"),
    "replayed": (resigned(head=3), "its verdict is for move 4 of the stage, and the next is 5"),
    "from the future of the stage": (resigned(head=5), "its verdict is for move 6 of the stage"),
    "another champion": (resigned(champion=1), "compares with version 1, and the stage holds version 2"),
    "no champion": (resigned(champion=None), "compares with no version, and the stage holds version 2"),
    "an empty stage": (
        move_with(TAGS, holder=None),
        "compares with version 2, and the stage holds no version",
    ),
    "another policy": (
        resigned(policy="d" * 64),
        "is for other rules than those in the policy of the registry",
    ),
    "another rule": (resigned(rule="better"), "is for other rules than those in the policy"),
    "another margin": (resigned(margin=0.5), "is for other rules than those in the policy"),
    "expired": (move_with(TAGS, now=NOW + 6 * DAY), "its verdict expired at 2026-12-04T12:00:00+00:00"),
    "a clock a day behind": (move_with(TAGS, now=NOW - DAY), "which is in the future; check the clocks"),
    "a clock of the evaluator a day ahead": (
        resigned(evaluated_at=NOW + DAY, expires_at=NOW + 8 * DAY),
        "its verdict is from 2026-11-29T12:00:00+00:00, which is in the future; check the clocks",
    ),
    "valid for too long": (resigned(expires_at=NOW + 7 * DAY), "is valid for longer than the policy allows"),
    "not requested": (
        move_with({key: text for key, text in TAGS.items() if key != REQUEST}),
        "nobody requested it; run: registry-tools request iris/3 --to production --reason TEXT",
    ),
    "a request without a user": (move_with(edited(REQUEST, by=None)), "its request has no user: start"),
    "an old request": (move_with(edited(REQUEST, head=3)), "its request is void"),
    "a request for other files": (move_with(edited(REQUEST, digest="c" * 64)), "its request is void"),
    "a request for another verdict": (move_with(edited(REQUEST, verdict="c" * 64)), "its request is void"),
    "a damaged request": (
        move_with(TAGS | {REQUEST: "{"}),
        "the tag request is not valid: its value: Invalid JSON",
    ),
    "no approval": (
        move_with({key: text for key, text in TAGS.items() if key != BEN}),
        "it has 0 of 1 approvals; ana, ben may run: registry-tools approve iris/3 --to production",
    ),
    "an old approval": (move_with(edited(BEN, head=3)), "it has 0 of 1 approvals"),
    "an approval of other files": (move_with(edited(BEN, digest="c" * 64)), "it has 0 of 1 approvals"),
    "an approval of another verdict": (move_with(edited(BEN, verdict="c" * 64)), "it has 0 of 1 approvals"),
    "an approval without a user": (move_with(edited(BEN, by=None)), "it has 0 of 1 approvals"),
    "an approval by another user": (move_with(edited(BEN, by="ana")), "it has 0 of 1 approvals"),
    "a damaged approval": (move_with(TAGS | {BEN: "{}"}), "it has 0 of 1 approvals"),
    "an approval by the requester": (
        move_with(edited(REQUEST, by="ben")),
        "it has 0 of 1 approvals; ana may run: registry-tools approve",
    ),
    "an approval by the user who registered it": (
        move_with(TAGS | {tag_names.REGISTERED_BY: "ben"}),
        "it has 0 of 1 approvals; ana may run: registry-tools approve",
    ),
    "a rejection": (
        move_with(edited(BEN, decision="reject", reason="wrong labels")),
        "ben rejected it: wrong labels; ben may run: registry-tools approve",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_move_is_refused_and_the_message_says_why(case: str) -> None:
    move, message = REFUSALS[case]
    assert message in refusal(move)


def test_a_verdict_may_be_slightly_newer_than_the_clock_but_not_expired() -> None:
    assert decide(POLICY, resigned(evaluated_at=NOW + timedelta(minutes=5))).action == "promote"
    assert "in the future" in refusal(resigned(evaluated_at=NOW + timedelta(minutes=5, seconds=1)))
    almost = NOW + timedelta(days=6) - timedelta(seconds=1)
    assert decide(POLICY, move_with(TAGS, now=almost)).action == "promote"


def test_an_edited_payload_is_refused() -> None:
    content = json.loads(ENVELOPE)
    payload = base64.b64decode(content["payload"]).replace(b'"head": 4', b'"head": 5')
    content["payload"] = base64.b64encode(payload).decode()
    tags = tags_for(json.dumps(content))
    assert "no key of the evaluators signed the envelope" in refusal(move_with(tags, head=5))


def test_a_metric_of_the_policy_must_be_that_of_the_verdict() -> None:
    policy = make_policy(gates={"metric": "recall:versicolor"})
    wrong, right = (
        move_with(tags_for(signed(statement_for(policy, metric=metric))))
        for metric in ("accuracy", "recall:versicolor")
    )
    assert "is for other rules" in refusal(wrong, policy)
    assert decide(policy, right).action == "promote"


def test_each_evaluator_of_the_stage_may_sign() -> None:
    policy = make_policy(evaluators=["nightly", "ci"])
    for name in ("ci", "nightly"):
        move = move_with(tags_for(signed(statement_for(policy, evaluator=name), name)))
        assert decide(policy, move).action == "promote"


def test_a_freeze_refuses_promotions_between_its_times() -> None:
    policy = make_policy(freeze=[{"from": NOW, "until": NOW + DAY, "reason": "holidays"}])
    tags = tags_for(signed(statement_for(policy)))
    assert "production is frozen until 2026-11-29T12:00:00+00:00: holidays" in refusal(
        move_with(tags), policy
    )
    for now in (NOW - timedelta(seconds=1), NOW + DAY):
        assert decide(policy, move_with(tags, now=now)).action == "promote"


def test_an_approver_who_lost_the_right_does_not_count() -> None:
    policy = make_policy(approvals={"count": 1, "by": ["ana"]})
    tags = tags_for(signed(statement_for(policy)))
    assert "it has 0 of 1 approvals; ana may run" in refusal(move_with(tags), policy)
    rejected = tags_for(signed(statement_for(policy)), decision="reject")
    assert "rejected" not in refusal(move_with(rejected), policy)


def test_two_approvals_need_two_users() -> None:
    policy = make_policy(approvals={"count": 2, "by": ["ana", "ben", "dan"]})
    tags = tags_for(signed(statement_for(policy)))
    again = tags[BEN]
    assert "it has 1 of 2 approvals; ana may run" in refusal(move_with(tags), policy)
    copied = tags | {tag_names.approval_tag(STAGE, "ana"): again, "approval.production.0000": again}
    assert "it has 1 of 2 approvals" in refusal(move_with(copied), policy)
    second = tags | {tag_names.approval_tag(STAGE, "ana"): json.dumps(json.loads(again) | {"by": "ana"})}
    assert decide(policy, move_with(second)).action == "promote"


def test_every_missing_condition_is_listed() -> None:
    move = resigned(head=3, champion=1)
    lines = missing(POLICY, dataclasses.replace(move, tags={**move.tags, BEN: "{}", REQUEST: "{}"}))
    assert [line.split("; ")[0] for line in lines] == [
        "its verdict is for move 4 of the stage, and the next is 5",
        "its verdict compares with version 1, and the stage holds version 2",
        "the tag request is not valid: reason: Field required",
        "it has 0 of 1 approvals",
    ]
