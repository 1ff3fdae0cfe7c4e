"""A verdict moves one version of one model to one stage, once, and in its time."""

from __future__ import annotations

import base64
import json
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from tests.support.gated import Gated, digest_of, refusal
from tests.support.signing_keys import write_keys

_NOW = datetime.now(timezone.utc)
_DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"registry": "other"}, "it is about the registry other"),
        ({"model": "iris-other"}, "it is about the model iris-other"),
        ({"version": 2}, "it is about the version 2"),
        ({"model_digest": digest_of("other")}, "it is about the model digest"),
        ({"evidence_digest": digest_of("other")}, "it is about the evidence digest"),
        ({"champion": 2}, "compares with version 2, and the stage holds no version"),
        ({"head": 1}, "is for move 2 of the stage, and the next is 1"),
        ({"policy": digest_of("other")}, "is for other rules than those in the policy"),
        ({"passed": False}, "a gate refused the version"),
        ({"evaluated_at": _NOW - 2 * _DAY, "expires_at": _NOW - _DAY}, "expired at"),
        ({"evaluated_at": _NOW + _DAY, "expires_at": _NOW + 2 * _DAY}, "which is in the future"),
        ({"expires_at": _NOW + 30 * _DAY}, "is valid for longer than the policy allows"),
    ],
)
def test_a_verdict_about_something_else_is_refused(
    gated: Gated, changes: dict[str, Any], reason: str
) -> None:
    name = gated.model()
    gated.evaluate(name, 1, **changes)
    assert reason in refusal(gated.move("trainer", name, 1))
    assert gated.aliases(name) == {}


def test_a_verdict_for_another_stage_is_refused(gated: Gated) -> None:
    name = gated.model()
    text = gated.verdict(name, 1).encode()
    envelope = json.loads(text)
    payload = base64.b64decode(envelope["payload"])
    assert b'"production"' in payload
    gated.evaluate(name, 1)
    other = gated.verdict(name, 1, model=name, rule="better")
    assert gated.tag("trainer", name, 1, "verdict.production", other).status_code == 200
    assert "is for other rules" in refusal(gated.move("trainer", name, 1))


def test_an_edited_verdict_is_refused(gated: Gated) -> None:
    name = gated.model()
    envelope = json.loads(gated.verdict(name, 1))
    payload = base64.b64decode(envelope["payload"]).replace(b'"version": 1', b'"version": 2')
    envelope["payload"] = base64.b64encode(payload).decode()
    gated.tag("trainer", name, 2, "verdict.production", json.dumps(envelope))
    assert "its verdict does not count" in refusal(gated.move("trainer", name, 2))


def test_a_verdict_by_another_key_is_refused(gated: Gated) -> None:
    write_keys(gated.folder, "mallory")
    name = gated.model()
    gated.evaluate(name, 1, key="mallory")
    assert "its verdict does not count" in refusal(gated.move("trainer", name, 1))


def test_a_verdict_is_not_replayed_after_a_rollback(gated: Gated) -> None:
    name = gated.model()
    gated.promote(name, 1)
    gated.promote(name, 2)
    assert gated.move("oncall", name, 1).status_code == 200
    assert "is for move 2 of the stage, and the next is 4" in refusal(gated.move("trainer", name, 2))
    assert gated.aliases(name) == {"production": 1}


def test_a_verdict_does_not_serve_a_version_that_is_registered_again_with_its_number(gated: Gated) -> None:
    name = gated.model("one")
    envelope = gated.verdict(name, 1)
    gated.done("owner", "DELETE", "registered-models/delete", name=name)
    gated.model("another", name=name)
    gated.tag("trainer", name, 1, "verdict.production", envelope)
    assert "it is about the model digest" in refusal(gated.move("trainer", name, 1))


def test_a_verdict_on_files_without_a_digest_is_refused(gated: Gated) -> None:
    name = gated.model()
    envelope = gated.evaluate(name, 1)
    gated.untag("trainer", name, 1, "artifact_digest")
    assert gated.get(name, 1)["tags"]["verdict.production"] == envelope
    assert "it has no digest" in refusal(gated.move("trainer", name, 1))
