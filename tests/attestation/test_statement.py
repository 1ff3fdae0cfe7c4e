"""The statement of a verdict: its JSON, and the payloads that are refused."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from in_toto_attestation.v1 import statement as in_toto

from registry_tools.attestation.statement import PREDICATE_TYPE, VerdictStatement
from registry_tools.errors import VerificationError
from tests.support.policies import EVIDENCE_DIGEST, MODEL_DIGEST, make_policy, statement_for

STATEMENT = statement_for(make_policy())


def test_a_statement_survives_its_payload() -> None:
    assert VerdictStatement.from_bytes(STATEMENT.to_bytes()) == STATEMENT
    bare = statement_for(make_policy(), evidence_digest=None, champion=None, head=0)
    assert VerdictStatement.from_bytes(bare.to_bytes()) == bare


def test_the_json_is_a_statement_of_in_toto() -> None:
    content = json.loads(STATEMENT.to_bytes())
    assert content["subject"] == [
        {"name": "iris/3/model", "digest": {"sha256": MODEL_DIGEST}},
        {"name": "iris/3/evidence", "digest": {"sha256": EVIDENCE_DIGEST}},
    ]
    assert content["predicate"]["evaluatedAt"] == "2026-11-28T11:00:00Z"
    subjects = [in_toto.ResourceDescriptor(name=s["name"], digest=s["digest"]).pb for s in content["subject"]]
    in_toto.Statement(subjects, PREDICATE_TYPE, content["predicate"]).validate()


def with_predicate(**changes: Any) -> bytes:
    content = json.loads(STATEMENT.to_bytes())
    content["predicate"] |= changes
    return json.dumps(content).encode()


def test_unknown_fields_are_ignored_as_in_toto_asks() -> None:
    assert VerdictStatement.from_bytes(with_predicate(extra=[1])) == STATEMENT


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "Invalid JSON"),
        (b"\xff", "Invalid JSON"),
        (b"[]", "should be an object"),
        (b"[" * 100_000, "recursion limit"),
        (STATEMENT.to_bytes().replace(b"Statement/v1", b"Statement/v0.1"), "_type"),
        (STATEMENT.to_bytes().replace(b"verdict:v1", b"verdict:v2"), "predicateType"),
        (with_predicate(version=4), "its subject 'iris/3/evidence' is not a part of iris/4"),
        (with_predicate(version="3"), "version: Input should be a valid integer"),
        (with_predicate(passed="true"), "passed: Input should be a valid boolean"),
        (with_predicate(head=-1), "head"),
        (with_predicate(policy="A" * 64), "policy"),
        (with_predicate(gates={}), "gates"),
        (with_predicate(expiresAt="2026-11-28T12:00:00"), "expires_at: Input should have timezone info"),
        (STATEMENT.to_bytes().replace(b"iris/3/model", b"iris/3/data"), "its subject 'iris/3/data'"),
        (STATEMENT.to_bytes().replace(b'"sha256"', b'"md5"'), "KeyError: 'sha256'"),
    ],
)
def test_another_payload_is_one_verification_error(payload: bytes, message: str) -> None:
    with pytest.raises(VerificationError, match="the payload is not the statement of a verdict: ") as caught:
        VerdictStatement.from_bytes(payload)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.integers(0, len(STATEMENT.to_bytes()) - 1), st.binary(max_size=3))
def test_a_damaged_payload_raises_no_other_error(place: int, change: bytes) -> None:
    payload = STATEMENT.to_bytes()
    with contextlib.suppress(VerificationError):
        VerdictStatement.from_bytes(payload[:place] + change + payload[place + 1 :])
