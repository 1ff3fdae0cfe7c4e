"""The names of the tags that hold the evidence for the moves of a stage. All stages are in lower case."""

from __future__ import annotations

import hashlib

# The kinds of tags of a version. The name of a tag is KIND.STAGE, and for an approval KIND.STAGE.ID.
VERDICT, REQUEST, APPROVAL, FORCE, HELD = "verdict", "request", "approval", "force", "held"
HEAD = "head"  # of the registered model
REGISTERED_BY = "registered_by"  # of a version: the authenticated user who created it; may be empty
# Tags of a version with the digests of its files: of the model, of the evidence, and of the ONNX file that a
# promotion stored.
DIGEST_TAG, EVIDENCE_DIGEST_TAG, ONNX_DIGEST_TAG = "artifact_digest", "evidence_digest", "onnx_digest"


def is_of_registry(key: str) -> bool:
    """Check whether a tag of a version has a meaning only in the registry where it was written."""
    kind, dot, _ = key.partition(".")
    return key == REGISTERED_BY or bool(dot and kind in {VERDICT, REQUEST, APPROVAL, FORCE, HELD})


def verdict_tag(stage: str) -> str:
    """Return the tag with the signed verdict for a stage."""
    return f"{VERDICT}.{stage}"


def request_tag(stage: str) -> str:
    """Return the tag with the request to promote the version to a stage."""
    return f"{REQUEST}.{stage}"


def approval_tag(stage: str, user: str) -> str:
    """Return the tag with the approval or the rejection by one user."""
    return f"{APPROVAL}.{stage}.{approver_id(user)}"


def approver_id(user: str) -> str:
    """Return the id of a user in the names of approval tags."""
    return hashlib.sha256(user.encode()).hexdigest()[:16]


def force_tag(stage: str) -> str:
    """Return the tag with the reason to move a stage without a verdict."""
    return f"{FORCE}.{stage}"


def held_tag(stage: str) -> str:
    """Return the tag that records how the version last entered or left a stage."""
    return f"{HELD}.{stage}"


def head_tag(stage: str) -> str:
    """Return the tag of the registered model with the number of moves of a stage."""
    return f"{HEAD}.{stage}"
