"""The values of tags are read strictly, and any other text is one error."""

from __future__ import annotations

import pytest

from registry_tools.errors import VerificationError
from registry_tools.policy.records import Approval, Force, Held, Request, verdict_digest


def test_a_record_is_read_strictly() -> None:
    for kind, text in (
        (Request, '{"reason": "x", "digest": null, "head": "1", "verdict": null}'),
        (Request, '{"reason": "x", "digest": null, "head": 1, "verdict": null, "more": 1}'),
        (Approval, '{"reason": "x", "digest": null, "head": 1, "verdict": null, "decision": "maybe"}'),
        (Force, '{"reason": "x", "head": -1}'),
        (Held, "[]"),
        (Held, "[" * 100_000),
    ):
        with pytest.raises(VerificationError, match=f"the tag {kind.__name__.lower()} is not valid: "):
            kind.from_text(text)
    record = Approval("x", None, 1, None, decision="reject")
    assert Approval.from_text(record.to_text()) == record
    assert verdict_digest("a") == verdict_digest("a") != verdict_digest("b")
