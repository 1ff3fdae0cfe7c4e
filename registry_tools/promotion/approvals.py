"""Request the promotion of a version to a protected stage, approve or reject it, and list open requests.

Each of these is a tag of the version, to which a gated registry adds the authenticated user and the time.
It counts as long as the files of the version, its verdict and the stage stay as they are. An event in the
history of the model records it as well.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from mlflow import MlflowClient

from registry_tools.attestation.statement import VerdictStatement
from registry_tools.errors import MoveRefused, PromotionError, RegistryToolsError, VerificationError
from registry_tools.evaluation.verdict import Verdict
from registry_tools.mlflow_store import registered_models, registry
from registry_tools.mlflow_store.client import registry_address
from registry_tools.mlflow_store.registry import VersionInfo
from registry_tools.policy import tag_names
from registry_tools.policy.decision import Move, current_record, decisions, missing, verdict_of
from registry_tools.policy.definition import Policy
from registry_tools.policy.records import Approval, Request
from registry_tools.promotion.event import APPROVE, RECORDED, REJECT, REQUEST
from registry_tools.promotion.event_log import EventLog
from registry_tools.promotion.moves import StageState, check_length
from registry_tools.promotion.protected_stage import write_stamped
from registry_tools.promotion.stage_evidence import read_move
from registry_tools.refs import ModelRef

_log = logging.getLogger(__name__)
C = TypeVar("C", Request, Approval)


@dataclass(frozen=True)
class PendingRequest:
    """A request to promote a version to a protected stage, with the evidence so far."""

    model: str
    version: int
    stage: str
    requester: str
    at: str  # ISO 8601, UTC
    reason: str
    statement: VerdictStatement | None  # of the verdict; None if the verdict does not count
    approvals: tuple[Approval, ...]  # the present approvals and rejections
    missing: list[str]  # a line for each condition that is not met; empty if the stage may move

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        verdict = None
        if self.statement is not None:
            verdict = {
                "champion": self.statement.champion,
                "evaluator": self.statement.evaluator,
                "expires_at": self.statement.expires_at.isoformat(),
                "gates": list(self.statement.gates),
            }
        shown = {"verdict": verdict, "approvals": [dataclasses.asdict(each) for each in self.approvals]}
        return {key: value for key, value in vars(self).items() if key != "statement"} | shown


def request(client: MlflowClient, ref: ModelRef, stage: str, reason: str) -> Request:
    """Request the promotion of a version to a protected stage, and return the request as recorded.

    Raises
    ------
    PromotionError
        If the reason is empty, the version has no verdict or holds the stage, or the registry is not gated.
    MoveRefused
        If the policy of the registry does not protect the stage.
    """
    if not reason.strip():
        raise PromotionError("a request needs --reason: its approvers read it")
    version, move = _find(client, ref, stage)
    record = Request(reason, move.digests["model"], move.head, move.verdict)
    return _record(client, version, move, REQUEST, tag_names.request_tag(stage), record)


def approve(client: MlflowClient, ref: ModelRef, stage: str, reason: str = "") -> Approval:
    """Approve a requested promotion, and return the approval as recorded.

    Raises
    ------
    PromotionError
        If nobody requested the promotion, or the registry is not gated.
    MoveRefused
        If the user may not approve it.
    """
    return _decide(client, ref, stage, APPROVE, reason)


def reject(client: MlflowClient, ref: ModelRef, stage: str, reason: str) -> Approval:
    """Reject a requested promotion, and return the rejection as recorded.

    Raises
    ------
    PromotionError
        If the reason is empty, nobody requested the promotion, or the registry is not gated.
    MoveRefused
        If the user may not approve it.
    """
    if not reason.strip():
        raise PromotionError("a rejection needs --reason: the requester reads it")
    return _decide(client, ref, stage, REJECT, reason)


def pending(client: MlflowClient, policy: Policy, model: str | None = None) -> list[PendingRequest]:
    """Return the requests for the next move of each protected stage, the newest first.

    A request that was granted, or whose stage moved otherwise, is not pending. One that is void because
    its verdict changed is, with that as a missing condition.
    """
    if model is not None:
        registered_models.get_registered_model(client, model)  # its error lists existing models
    found: list[PendingRequest] = []
    for stage in sorted({stage for stages in policy.models.values() for stage in stages}):
        for version in registry.versions_with_tag(client, tag_names.request_tag(stage), model):
            if policy.stage(version.name, stage) is not None:
                found += _pending(client, policy, version, stage)
    return sorted(found, key=lambda each: each.at, reverse=True)


def _pending(
    client: MlflowClient, policy: Policy, version: VersionInfo, stage: str
) -> Iterator[PendingRequest]:
    try:
        requested = Request.from_text(version.tags[tag_names.request_tag(stage)])
    except VerificationError as error:
        _log.warning("%s version %s: %s", version.name, version.version, error)
        return
    tags = registered_models.get_registered_model(client, version.name).tags
    if tags.get(tag_names.head_tag(stage), "0") != str(requested.head):
        return
    move = read_move(client, version, stage)
    rules = policy.stage(version.name, stage)
    assert rules is not None
    try:
        statement = verdict_of(rules, move)
    except VerificationError:
        statement = None  # `missing` says why
    yield PendingRequest(
        model=version.name,
        version=version.version,
        stage=stage,
        requester=requested.by or "",
        at=requested.at or "",
        reason=requested.reason,
        statement=statement,
        approvals=tuple(decisions(rules, move)),
        missing=missing(policy, move),
    )


def _find(client: MlflowClient, ref: ModelRef, stage: str) -> tuple[VersionInfo, Move]:
    version = registry.find_version(client, ref)
    move = read_move(client, version, stage)
    title = f"{version.name} version {version.version}"
    if move.holder == version.version:
        raise PromotionError(f"stage {stage} already holds {title}")
    if move.verdict is None:
        command = f"registry-tools evaluate {version.name}/{version.version} --to {stage} --key KEY"
        raise PromotionError(f"{title} has no verdict for {stage}; run: {command}")
    return version, move


def _decide(client: MlflowClient, ref: ModelRef, stage: str, decision: Any, reason: str) -> Approval:
    version, move = _find(client, ref, stage)
    requested = current_record(Request, move, tag_names.request_tag(stage))
    title = f"{version.name} version {version.version}"
    if requested is None:
        command = f"registry-tools request {version.name}/{version.version} --to {stage} --reason TEXT"
        raise PromotionError(f"nobody requested {title} for {stage} as it is now; run: {command}")
    excluded = {requested.by: "requested", version.tags.get(tag_names.REGISTERED_BY): "registered"}
    if decision == APPROVE and move.user in excluded:
        raise MoveRefused(
            f"{move.user} {excluded[move.user]} {title}, and an approval by the same user does not count; "
            "ask another approver"
        )
    record = Approval(reason, move.digests["model"], move.head, move.verdict, decision=decision)
    return _record(client, version, move, decision, tag_names.approval_tag(stage, move.user or ""), record)


def _record(client: MlflowClient, version: VersionInfo, move: Move, action: str, key: str, record: C) -> C:
    """Write a tag, and an event in the history. The tag counts even if the event cannot be written."""
    check_length("reason", record.reason)
    stamped = write_stamped(client, version, key, record)
    if stamped is None:
        raise PromotionError(
            f"{registry_address(client)} is not a gated registry, and this has no effect there; see "
            "docs/reference/verdicts.md"
        )
    try:
        log = EventLog.find_or_make(client, move.model)
        state = StageState(log, move.stage, stamped.by or "", log.head(move.stage), move.holder)
        state.note(state.draft(action, version, record.reason, Verdict(())), RECORDED)
    except RegistryToolsError as error:
        _log.warning("the history of %s has no event of this: %s", move.model, error)
    return stamped
