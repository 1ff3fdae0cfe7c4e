"""Any change of the evidence, the registry or the policy takes the permission for a good move away."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_tools.errors import MoveRefused
from registry_tools.policy import tag_names
from registry_tools.policy.decision import Grant, Move, decide
from registry_tools.policy.definition import Policy
from tests.support.policies import (
    NOW,
    STAGE,
    make_policy,
    move_with,
    policy_content,
    signed,
    statement_for,
    tags_for,
)

POLICY = make_policy()
ENVELOPE = signed(statement_for(POLICY))
TAGS = tags_for(ENVELOPE)
GOOD = move_with(TAGS)
VERDICT, REQUEST = tag_names.verdict_tag(STAGE), tag_names.request_tag(STAGE)
BEN = tag_names.approval_tag(STAGE, "ben")
DAY = timedelta(days=1)


def refusal(move: Move, policy: Policy = POLICY) -> str:
    with pytest.raises(MoveRefused) as caught:
        decide(policy, move)
    return str(caught.value)


# One change of a good move: of a signed field, of a record, of the registry, of the policy or of the text.
other_text = st.text(max_size=20) | st.sampled_from(["e" * 64, "staging", "nightly", "2020-01-01T00:00:00Z"])
other_value = st.none() | st.booleans() | st.integers(-2, 9) | other_text | st.just([]) | st.just({})


def changed(before: Any, value: Any) -> bool:
    return (type(before), before) != (type(value), value)


@given(st.sampled_from(sorted(json.loads(statement_for(POLICY).to_bytes())["predicate"])), other_value)
def test_no_changed_field_of_a_signed_payload_is_granted(field: str, value: Any) -> None:
    content = json.loads(ENVELOPE)
    statement = json.loads(base64.b64decode(content["payload"]))
    if not changed(statement["predicate"][field], value):
        return
    statement["predicate"][field] = value
    content["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
    assert "no key of the evaluators" in refusal(move_with(tags_for(json.dumps(content))))


sha256 = st.text("0123456789abcdef", min_size=64, max_size=64)
too_early = st.datetimes(max_value=NOW.replace(tzinfo=None), timezones=st.just(NOW.tzinfo))
too_late = st.datetimes(
    min_value=(NOW + timedelta(minutes=6)).replace(tzinfo=None), timezones=st.just(NOW.tzinfo)
)
FIELDS = st.one_of(
    st.tuples(st.sampled_from(["registry", "model", "stage", "evaluator", "rule"]), other_text),
    st.tuples(st.sampled_from(["version", "head", "champion"]), st.integers(1, 10**9)),
    st.tuples(st.sampled_from(["policy", "model_digest", "evidence_digest"]), sha256),
    st.tuples(st.just("passed"), st.just(False)),
    st.tuples(st.just("margin"), st.floats(0, 1)),
    st.tuples(st.just("gates"), st.just(())),
    st.tuples(st.just("expires_at"), too_early),
    st.tuples(st.just("evaluated_at"), too_late),
)


@given(FIELDS, st.sampled_from(["ci", "nightly", "stranger"]))
def test_no_other_statement_is_granted_even_if_an_evaluator_signs_it(
    change: tuple[str, Any], key: str
) -> None:
    field, value = change
    good = statement_for(POLICY)
    if key == "ci" and not changed(getattr(good, field), value):
        return
    refusal(move_with(tags_for(signed(dataclasses.replace(good, **{field: value}), key))))


@given(st.data())
def test_no_other_state_of_the_registry_is_granted(data: st.DataObject) -> None:
    numbers, digests = st.integers(0, 10**6), {"model": sha256, "evidence": st.none() | sha256}
    field, value = data.draw(
        st.one_of(
            st.tuples(st.just("holder"), st.none() | numbers),
            st.tuples(st.sampled_from(["head", "version"]), numbers),
            st.tuples(st.just("model"), st.just("iris-2")),
            st.tuples(st.just("digests"), st.fixed_dictionaries(digests)),
            st.tuples(st.just("now"), st.datetimes(timezones=st.just(NOW.tzinfo))),
        )
    )
    allowed = (
        NOW - timedelta(hours=1, minutes=5) <= value < NOW + timedelta(days=6) if field == "now" else False
    )
    if not allowed and changed(getattr(GOOD, field), value) and (field, value) != ("holder", 3):
        with pytest.raises(MoveRefused):
            decide(POLICY, dataclasses.replace(GOOD, **{field: value}))


@given(st.sampled_from([VERDICT, REQUEST, BEN]), st.data())
def test_no_other_text_of_a_tag_is_granted(key: str, data: st.DataObject) -> None:
    text = TAGS[key]
    place = data.draw(st.integers(0, len(text) - 1))
    damaged = text[:place] + data.draw(st.characters()) + text[place + 1 :]
    tags = TAGS | {key: damaged} if data.draw(st.booleans()) else {k: v for k, v in TAGS.items() if k != key}
    if tags == TAGS:
        return
    try:
        grant = decide(POLICY, move_with(tags))
    except MoveRefused:
        return
    # A reason and a time are not evidence.
    assert key in {REQUEST, BEN}
    assert grant.envelope == ENVELOPE
    before, after = json.loads(text), json.loads(damaged)
    assert {name for name in before if before[name] != after[name]} <= {"reason", "at", "by"}


@given(st.sampled_from(["registry", "evaluators", "gates", "approvals", "expires", "protected", "freeze"]))
def test_no_other_policy_grants_the_verdict(part: str) -> None:
    content: dict[str, Any] = policy_content()
    rules: dict[str, Any] = content["models"]["iris*"][STAGE]
    changes: Mapping[str, Any] = {
        "evaluators": ["nightly", "ci"],
        "gates": {"min": {"accuracy": 0.91}},
        "approvals": {"count": 1, "by": ["ben"]},
        "expires": "8d",
        "freeze": [{"from": NOW + DAY, "until": NOW + 2 * DAY, "reason": "later"}],
    }
    if part == "registry":
        content["registry"] = "other"
    elif part == "protected":  # such a move needs no verdict, and none is recorded
        assert decide(make_policy(protected=False), GOOD) == Grant("promote")
        return
    else:
        rules[part] = changes[part]
    refusal(GOOD, Policy.model_validate(content))
