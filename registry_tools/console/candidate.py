"""A version as a candidate for a stage: its evidence, and the conditions of a move that are not met."""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass

from registry_tools.attestation.statement import VerdictStatement
from registry_tools.errors import RegistryToolsError, VerificationError
from registry_tools.mlflow_store import registered_models, registry, stages
from registry_tools.mlflow_store.client import Page, RegistryClient
from registry_tools.mlflow_store.registry import VersionInfo
from registry_tools.policy import tag_names
from registry_tools.policy.decision import Move, current_record, decisions, missing, verdict_of
from registry_tools.policy.definition import Policy, StagePolicy
from registry_tools.policy.records import Approval, Request
from registry_tools.promotion.protected_stage import protected_by
from registry_tools.promotion.stage_evidence import read_move


@dataclass(frozen=True)
class Candidate:
    """A version for a stage; `rules` is None if the policy does not protect the stage."""

    version: VersionInfo
    stage: str
    holder: int | None
    rules: StagePolicy | None
    request: Request | None = None
    verdict: VerdictStatement | None = None
    verdict_fault: str = ""
    approvals: tuple[Approval, ...] = ()
    gaps: tuple[str, ...] = ()
    seen: str = ""  # changes with the evidence, so that nobody approves what the page did not show


def read_candidate(
    client: RegistryClient, policy: Policy | None, name: str, number: int, stage: str
) -> Candidate:
    """Read a version with its metrics, and judge it by the policy."""
    version = registry.get_version_without_stages(client, name, number)
    rules = protected_by(policy, name, stage)
    if policy is None or rules is None:
        return Candidate(version, stage, stages.stage_holder(client, name, stage), None)
    move = read_move(client, version, stage)
    verdict, fault = _verdict(rules, move)
    return Candidate(
        version,
        stage,
        move.holder,
        rules,
        current_record(Request, move, tag_names.request_tag(stage)),
        verdict,
        fault,
        tuple(decisions(rules, move)),
        tuple(missing(policy, move)),
        _seen(move),
    )


@dataclass(frozen=True)
class OpenRequest:
    """A version that somebody requested for the next move of a stage."""

    model: str
    version: int
    stage: str
    request: Request


def open_requests(
    client: RegistryClient, policy: Policy, stage: str, size: int, token: str | None
) -> Page[OpenRequest]:
    """Return the open requests for a stage among one page of the versions that were ever requested for it."""
    tag, heads, found = tag_names.request_tag(stage), {}, []
    page = registry.tagged_versions_page(client, tag, size, token)
    for version in page.items:
        name = version.name
        if policy.stage(name, stage) is None:
            continue
        if name not in heads:
            tags = registered_models.get_registered_model(client, name).tags
            heads[name] = tags.get(tag_names.head_tag(stage), "0")
        with contextlib.suppress(VerificationError):  # any user may write the tag
            request = Request.from_text(version.tags[tag])
            if str(request.head) == heads[name]:
                found.append(OpenRequest(name, version.version, stage, request))
    return Page(tuple(found), page.following)


def _verdict(rules: StagePolicy, move: Move) -> tuple[VerdictStatement | None, str]:
    """Return the statement of the signed verdict, or else why there is none."""
    try:
        return verdict_of(rules, move), ""
    except RegistryToolsError as error:
        return None, str(error)


def _seen(move: Move) -> str:
    shown = [move.holder, move.head, move.digests["model"], move.verdict]
    return hashlib.sha256(json.dumps(shown).encode()).hexdigest()
