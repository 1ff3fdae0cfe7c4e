"""A policy with two keys, and a move that it allows, which tests change."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives.asymmetric import ed25519

from registry_tools.attestation.envelope import PAYLOAD_TYPE, sign_envelope
from registry_tools.attestation.statement import VerdictStatement
from registry_tools.policy import tag_names
from registry_tools.policy.decision import Move
from registry_tools.policy.definition import Policy, StagePolicy
from registry_tools.policy.records import Approval, Request, verdict_digest
from tests.support.signing_keys import write_keys

NOW = datetime(2026, 11, 28, 12, tzinfo=timezone.utc)
MODEL, STAGE = "iris", "production"
MODEL_DIGEST, EVIDENCE_DIGEST = "a" * 64, "b" * 64


@functools.cache
def keys() -> dict[str, tuple[Path, str]]:
    """Return key pairs by name: the path of the private key, and the text of the public key."""
    folder = Path(tempfile.mkdtemp(prefix="test-keys-"))
    found = {}
    for name, key in {"ci": None, "nightly": ed25519.Ed25519PrivateKey.generate(), "stranger": None}.items():
        private = write_keys(folder, name, key)
        found[name] = (private, (folder / f"{name}.pub.pem").read_text())
    return found


def policy_content(**rules: Any) -> dict[str, Any]:
    """Return the content of a policy file that protects `production` of the models `iris*`."""
    production = {
        "gates": {"min": {"accuracy": 0.9}},
        "evaluators": ["ci"],
        "approvals": {"count": 1, "by": ["ana", "ben"]},
        "rollback": ["oncall"],
        "force": ["carol"],
    }
    return {
        "registry": "team-registry",
        "evaluators": {name: keys()[name][1] for name in ("ci", "nightly")},
        "models": {"iris*": {STAGE: production | rules}},
    }


def make_policy(**rules: Any) -> Policy:
    return Policy.model_validate(policy_content(**rules))


def write_policy(path: Path, **rules: Any) -> Path:
    path.write_text(yaml.safe_dump(policy_content(**rules), sort_keys=False))
    return path


def rules_of(policy: Policy) -> StagePolicy:
    rules = policy.stage(MODEL, STAGE)
    assert rules is not None
    return rules


def statement_for(policy: Policy, /, **changes: Any) -> VerdictStatement:
    """Return the statement of a verdict that allows version 3 to follow version 2."""
    rules = rules_of(policy)
    good = VerdictStatement(
        registry=policy.registry,
        model=MODEL,
        version=3,
        stage=STAGE,
        head=4,
        champion=2,
        policy=rules.digest,
        passed=True,
        gates=({"gate": "champion", "passed": True, "message": "equal", "metrics": {"accuracy": 0.97}},),
        rule=rules.gates.rule,
        margin=rules.gates.margin,
        metric="accuracy",
        evaluator="ci",
        evaluated_at=NOW - timedelta(hours=1),
        expires_at=NOW + timedelta(days=6),
        model_digest=MODEL_DIGEST,
        evidence_digest=EVIDENCE_DIGEST,
    )
    return dataclasses.replace(good, **changes)


def signed(statement: VerdictStatement, key: str = "ci") -> str:
    return sign_envelope(statement.to_bytes(), PAYLOAD_TYPE, keys()[key][0])


def tags_for(envelope: str, /, **approval: Any) -> dict[str, str]:
    """Return the tags of a version that dan registered, eve requested and ben approved."""
    bound = {"digest": MODEL_DIGEST, "head": 4, "verdict": verdict_digest(envelope), "at": NOW.isoformat()}
    return {
        tag_names.REGISTERED_BY: "dan",
        tag_names.verdict_tag(STAGE): envelope,
        tag_names.request_tag(STAGE): Request("better data", by="eve", **bound).to_text(),
        tag_names.approval_tag(STAGE, "ben"): Approval(
            "checked", **{"by": "ben", "decision": "approve"} | bound | approval
        ).to_text(),
    }


def move_with(tags: Mapping[str, str], **changes: Any) -> Move:
    """Return a move of the stage from version 2 to version 3."""
    good = Move(
        model=MODEL,
        stage=STAGE,
        version=3,
        holder=2,
        head=4,
        digests={"model": MODEL_DIGEST, "evidence": EVIDENCE_DIGEST},
        tags=tags,
        user="eve",
        now=NOW,
    )
    return dataclasses.replace(good, **changes)
