"""Which tags a client may write, and the values that the store adds to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from mlflow.entities.model_registry import ModelVersionTag, RegisteredModelTag

from registry_tools.errors import VerificationError
from registry_tools.gated_store.refusal import refused
from registry_tools.policy.definition import Policy
from registry_tools.policy.records import Approval, Force, Request
from registry_tools.policy.tag_names import (
    APPROVAL,
    DIGEST_TAG,
    EVIDENCE_DIGEST_TAG,
    FORCE,
    HEAD,
    HELD,
    ONNX_DIGEST_TAG,
    REGISTERED_BY,
    REQUEST,
    approver_id,
)

Tag = TypeVar("Tag", ModelVersionTag, RegisteredModelTag)

DIGESTS = frozenset({DIGEST_TAG, EVIDENCE_DIGEST_TAG, ONNX_DIGEST_TAG})
STAMPED: Mapping[str, type[Request | Approval | Force]] = {REQUEST: Request, APPROVAL: Approval, FORCE: Force}


def kind_of(key: str) -> str:
    """Return the kind of a tag: the part of its name before the first dot."""
    return key.partition(".")[0]


def stage_of(key: str) -> str:
    """Return the stage in the name of a tag `KIND.STAGE` or `KIND.STAGE.ID`."""
    return key.split(".")[1]


def is_written_by_store(key: str) -> bool:
    """Check whether only the store may write a tag of a version."""
    return key == REGISTERED_BY or key.startswith(f"{HELD}.")


def is_stamped(key: str) -> bool:
    """Check whether the store adds the user and the time to the value of a tag of a version."""
    return "." in key and kind_of(key) in STAMPED


def version_tags(tags: Iterable[ModelVersionTag] | None, user: str | None) -> list[ModelVersionTag]:
    """Return the tags of a new version: those of the client, and the user who registers it.

    The tags that a stage depends on are left out without an error, because MLflow's own copy of a version
    sends all tags of its source.
    """
    kept = [tag for tag in tags or () if not is_written_by_store(tag.key) and not is_stamped(tag.key)]
    return [*kept, ModelVersionTag(REGISTERED_BY, user or "")]


def model_tags(tags: Iterable[RegisteredModelTag] | None) -> list[RegisteredModelTag]:
    """Return the tags of a new model without those that only the store writes."""
    return [tag for tag in tags or () if not tag.key.startswith(f"{HEAD}.")]


def stamp(
    policy: Policy, model: str, tag: ModelVersionTag, user: str | None, now: datetime, head: int
) -> ModelVersionTag:
    """Return a request, an approval or the permission to force, with the user and the time.

    Raises
    ------
    MlflowException
        If the policy does not give this user the right, or the value is not valid.
    """
    kind, stage = kind_of(tag.key), stage_of(tag.key)
    rules = policy.stage(model, stage)
    if rules is None or stage != stage.lower():
        raise refused(f"the policy does not protect a stage {stage!r} of {model}, so {tag.key} has no use")
    try:
        record = STAMPED[kind].from_text(tag.value)
    except VerificationError as error:
        raise refused(f"{tag.key}: {error}") from error
    if isinstance(record, Approval):
        check_approver(tag.key, user)
        if user not in rules.approvals.by:
            raise refused(f"the policy does not name {user} as an approver of {stage} of {model}")
    if isinstance(record, Force):
        if user not in rules.force:
            raise refused(
                f"the policy does not allow {user or 'an unknown user'} to force {stage} of {model}"
            )
        if not record.reason.strip():
            raise refused(f"{tag.key} needs a reason; use: registry-tools promote --force --reason …")
        if record.head != head:
            raise refused(f"{stage} of {model} has moved {head} times, not {record.head}; read it again")
    return ModelVersionTag(tag.key, replace(record, by=user, at=now.isoformat(timespec="seconds")).to_text())


def check_approver(key: str, user: str | None) -> None:
    """Raise unless an approval tag belongs to the user."""
    if user is None:
        raise refused("an approval needs a signed-in user; start the server with --app-name basic-auth")
    if key != f"{APPROVAL}.{stage_of(key)}.{approver_id(user)}":
        raise refused(f"{key} is not the approval of {user}; use: registry-tools approve")
