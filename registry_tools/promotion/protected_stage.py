"""Move a stage that a policy protects: by the evidence of the version or by force, without running gates."""

from __future__ import annotations

import dataclasses
from typing import TypeVar

from mlflow import MlflowClient

from registry_tools.errors import AccessDenied, PromotionError, VerificationError
from registry_tools.evaluation.gate_options import GateOptions
from registry_tools.evaluation.verdict import GateResult, Verdict
from registry_tools.mlflow_store import registry
from registry_tools.mlflow_store.client import registry_address
from registry_tools.mlflow_store.registry import VersionInfo
from registry_tools.policy.decision import Move, missing, verdict_of
from registry_tools.policy.definition import Policy, StagePolicy
from registry_tools.policy.records import Approval, Force, Held, Request
from registry_tools.policy.tag_names import force_tag, held_tag
from registry_tools.promotion.stage_evidence import stage_head

R = TypeVar("R", Request, Approval, Force)


def protected_by(policy: Policy | None, model: str, stage: str) -> StagePolicy | None:
    """Return the rules of a stage; None if there is no policy, or it does not protect the stage."""
    return policy.stage(model, stage) if policy is not None else None


def check_options(rules: StagePolicy, options: GateOptions) -> None:
    """Raise `PromotionError` if options of the gates are not their defaults: the policy names the gates."""
    defaults = GateOptions()
    names = [each.name for each in dataclasses.fields(options) if each.name != "trust_policy"]
    given = [name for name in names if getattr(options, name) != getattr(defaults, name)]
    if given:
        raise PromotionError(
            f"the policy of {rules.registry} decides the gates of {rules.stage}: leave out {', '.join(given)}"
        )


def evidence_verdict(policy: Policy, move: Move) -> Verdict:
    """Return the gates of the signed verdict, and a refused gate `policy` for each missing condition."""
    rules = policy.stage(move.model, move.stage)
    gates: tuple[GateResult, ...] = ()
    if rules is not None:
        try:
            statement = verdict_of(rules, move)
        except VerificationError:
            pass  # `missing` says why
        else:
            gates = tuple(GateResult(**gate) for gate in statement.gates)
    return Verdict((*gates, *(GateResult("policy", False, gap) for gap in missing(policy, move))))


def allow_force(client: MlflowClient, version: VersionInfo, stage: str, reason: str) -> None:
    """Write down in a gated registry that the next move of a stage needs no evidence.

    Raises
    ------
    MoveRefused
        If the policy of the registry does not allow this user to force the stage.
    """
    record = Force(reason, stage_head(client, version.name, stage))
    write_stamped(client, version, force_tag(stage), record)


def last_move(client: MlflowClient, name: str, stage: str, version: int | None) -> Held | None:
    """Return how a gated registry last moved a stage, if that was a move to or from a version; else None."""
    found = registry.existing_version(client, name, version)
    text = found.tags.get(held_tag(stage)) if found is not None else None
    if text is None:
        return None
    try:
        record = Held.from_text(text)
    except VerificationError:  # only a registry that is not gated lets a user write this tag
        return None
    return record if record.head == stage_head(client, name, stage) else None


def write_stamped(client: MlflowClient, version: VersionInfo, key: str, record: R) -> R | None:
    """Write a tag to which a gated registry adds the user and the time, and return it with both.

    If the registry is not gated, the tag is removed, and the result is None.

    Raises
    ------
    PromotionError
        If the registry is gated, but does not know the user.
    """
    registry.set_tags(client, version, {key: record.to_text()})
    written = registry.existing_version(client, version.name, version.version)
    stamped = type(record).from_text(written.tags.get(key, "") if written is not None else "")
    if stamped.by:
        return stamped
    try:
        registry.delete_tag(client, version, key)
    except AccessDenied as error:  # MLflow lets a user set a tag who may not delete it
        raise PromotionError(
            f"{registry_address(client)} did not add your name to the tag {key}, so that it does not count, "
            "and you may not delete it: ask a user with MANAGE to do so"
        ) from error
    if stamped.at is None:
        return None
    raise PromotionError(
        f"{registry_address(client)} does not know you: its server needs --app-name basic-auth, and you "
        "need MLFLOW_TRACKING_USERNAME"
    )
