"""Read the state of a registry for the decision on the move of a stage, and check recorded entries."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone

from mlflow import MlflowClient

from registry_tools.errors import (
    AccessDenied,
    MoveRefused,
    RegistryToolsError,
    UnsupportedOperation,
    VerificationError,
)
from registry_tools.evaluation.verdict import GateResult
from registry_tools.mlflow_store import registry, stages
from registry_tools.mlflow_store.client import current_user, translate_errors
from registry_tools.mlflow_store.registered_models import get_registered_model
from registry_tools.mlflow_store.registry import VersionInfo
from registry_tools.policy.decision import Move, missing, verify_verdict
from registry_tools.policy.definition import Policy, StagePolicy
from registry_tools.policy.records import Held
from registry_tools.policy.tag_names import HELD, REGISTERED_BY, VERDICT, head_tag, held_tag, verdict_tag
from registry_tools.promotion.event_log import EventLog
from registry_tools.refs import ModelRef


def read_move(client: MlflowClient, version: VersionInfo, stage: str) -> Move:
    """Return the move of a stage to a version by this user, with the present state of the registry."""
    return Move(
        model=version.name,
        stage=stage,
        version=version.version,
        holder=stages.stage_holder(client, version.name, stage),
        head=stage_head(client, version.name, stage),
        digests={"model": version.digest, "evidence": version.evidence_digest},
        tags=version.tags,
        user=current_user(),
        now=datetime.now(timezone.utc),
    )


def missing_conditions(client: MlflowClient, ref: ModelRef, stage: str, policy: Policy) -> list[str]:
    """Return a line for each condition of a promotion to a stage that a version does not meet yet."""
    try:
        return missing(policy, read_move(client, registry.find_version(client, ref), stage))
    except UnsupportedOperation as error:  # without the extra `signing`, no verdict can be verified
        return [str(error)]


def stage_head(client: MlflowClient, name: str, stage: str) -> int:
    """Return the number of moves of a stage, to which verdicts and approvals are bound.

    A gated registry counts the moves itself, from 0. In another registry it is the number of the last
    event in the history of the stage.

    Raises
    ------
    RegistryToolsError
        If the count in the registry is not a number.
    """
    count = get_registered_model(client, name).tags.get(head_tag(stage))
    if count is None:
        return 0 if _is_gated(client, name, stage) else EventLog.find(client, name).head(stage).sequence
    if not (count.isascii() and count.isdecimal()):
        raise RegistryToolsError(
            f"the tag {head_tag(stage)} of {name} is {count!r}, not a number; correct it in MLflow"
        )
    return int(count)


def verdict_checks(
    version: VersionInfo, model_tags: Mapping[str, str], policy: Policy | None
) -> list[GateResult]:
    """Check the verdict of a version for each stage with a verdict, and for each protected stage it holds.

    Only a stage that the version holds can fail. A gated registry records each entry; if the stage moved
    after it, another client changed the alias in the database.
    """
    results = []
    for stage in sorted({*version.stages, *_stages_with_verdict(version.tags)}):
        rules = policy.stage(version.name, stage) if policy is not None else None
        if rules is None:
            if stage in _stages_with_verdict(version.tags):
                why = "there is no policy" if policy is None else "the policy does not protect the stage"
                results.append(GateResult("verdict", True, f"{stage}: not checked, because {why}"))
            continue
        try:
            results.append(
                GateResult("verdict", True, f"{stage}: {_entry(version, stage, rules, model_tags)}")
            )
        except VerificationError as error:
            results.append(GateResult("verdict", stage not in version.stages, f"{stage}: {error}"))
    return results


def _stages_with_verdict(tags: Mapping[str, str]) -> set[str]:
    kinds = (f"{VERDICT}.", f"{HELD}.")
    return {key.partition(".")[2] for key in tags if key.startswith(kinds)}


def _entry(version: VersionInfo, stage: str, rules: StagePolicy, model_tags: Mapping[str, str]) -> str:
    """Return how a version entered a stage, or which verdict it has for it.

    Raises
    ------
    VerificationError
        If the verdict is missing or does not count, or the stage was moved past the registry.
    """
    text = version.tags.get(held_tag(stage))
    held = Held.from_text(text) if text is not None else None
    if held is not None and stage in version.stages and model_tags.get(head_tag(stage)) != str(held.head):
        raise VerificationError(
            f"version {version.version} entered it in move {held.head}, and the registry counts "
            f"{model_tags.get(head_tag(stage))}: the alias was changed in the database; promote or roll back"
        )
    if held is not None and held.action == "force":
        return f"forced by {held.by}: {held.reason}"
    envelope = held.envelope if held is not None else version.tags.get(verdict_tag(stage))
    if envelope is None:
        raise VerificationError("the policy protects it, and the version has no verdict")
    digests = {"model": version.digest, "evidence": version.evidence_digest}
    statement = verify_verdict(rules, envelope, version.name, version.version, digests)
    return f"signed by {statement.evaluator} at {statement.evaluated_at.isoformat()}"


def _is_gated(client: MlflowClient, name: str, stage: str) -> bool:
    """Return whether the registry is gated: it wrote down who registered the newest version.

    For a version from before that, the function tries to delete the count, which is missing. MLflow lets
    only a user with EDIT do so.
    """
    newest = registry.newest_version(client, name)
    if newest is not None and REGISTERED_BY in newest.tags:
        return True
    try:
        with translate_errors(client.tracking_uri):
            client.delete_registered_model_tag(name, head_tag(stage))
    except MoveRefused:
        return True
    except AccessDenied:  # a user who may only read cannot find out
        return False
    return False
