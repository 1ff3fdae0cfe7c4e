"""Roll a stage back to an earlier version, or empty it."""

from __future__ import annotations

from collections.abc import Collection

from mlflow import MlflowClient

from registry_tools.errors import PromotionError
from registry_tools.evaluation.evaluate import evaluate_rollback
from registry_tools.evaluation.verdict import Verdict
from registry_tools.mlflow_store import registry
from registry_tools.mlflow_store.registry import VersionInfo
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.promotion import history
from registry_tools.promotion.event import APPLIED, EXTERNAL, ROLLBACK, UNSET, Event
from registry_tools.promotion.moves import StageState, open_stage
from registry_tools.promotion.promote import Promotion, check_exists
from registry_tools.promotion.protected_stage import allow_force
from registry_tools.refs import ModelRef


def rollback(
    client: MlflowClient,
    name: str,
    stage: str,
    *,
    reason: str,
    to: int | None = None,
    actor: str | None = None,
    trust_policy: TrustPolicy | None = None,
    expect_current: int | None = None,
) -> Promotion:
    """Roll a stage back to its previous version, or to the earlier version `to`.

    A rollback skips versions that were deleted or that fail the gates `integrity` and `predictions`. A
    second rollback skips the version that the first one left. If an earlier rollback was interrupted,
    this function completes it and does not roll back once more.

    Parameters
    ----------
    client, name, stage
        The registry, the model, and the name of the stage in lower case.
    reason, actor
        The reason and the user, for the history. If `actor` is None, it is the login name.
    to
        The version to roll back to; None takes the previous one.
    trust_policy
        The types and formats to trust in the version; None reads the policy from the environment.
    expect_current
        The version that the caller expects in the stage; None accepts any.

    Raises
    ------
    PromotionError
        If the reason is empty, there is no earlier version, or `to` never held the stage or fails
        the gates.
    StageMoved
        If the stage holds another version than `expect_current`, or moved in the meantime.
    """
    if not reason.strip():
        raise PromotionError("a rollback needs --reason: the history shows it")
    check_exists(client, name, stage)
    state = open_stage(client, name, stage, actor)
    repeated = _repeated(state, to)
    if repeated is not None:
        return repeated
    state.check_expected(expect_current)
    notes = list(state.notes)
    target, version, verdict = _find_target(state, to, trust_policy or TrustPolicy.from_environment(), notes)
    event = state.move(state.draft(ROLLBACK, version, reason, verdict, rollback_target=target.run_id))
    return Promotion(name, version.version, stage, state.held, verdict, event, tuple(notes))


def _repeated(state: StageState, to: int | None) -> Promotion | None:
    """Return the interrupted rollback that was just completed; None if there was none.

    Another rollback would go one version too far back.
    """
    left = state.completed
    if left is None or left.version is None or (left.action, left.outcome) != (ROLLBACK, APPLIED):
        return None
    if to not in {None, left.version}:
        return None
    name, before = state.log.model, left.previous_version
    return Promotion(name, left.version, state.stage, before, Verdict(()), left, state.notes)


def _find_target(
    state: StageState, to: int | None, trust_policy: TrustPolicy, notes: list[str]
) -> tuple[Event, VersionInfo, Verdict]:
    """Return the event to restore, its version and its verdict; add skipped versions to `notes`.

    Raises
    ------
    PromotionError
        If there is no such event.
    """
    client, name, stage = state.log.client, state.log.model, state.stage
    skipped: set[int | None] = set()
    for target in history.rollback_targets(state.log, state.head, of_any=to is not None):
        if target.version == state.held or (to is not None and target.version != to):
            continue
        version = registry.existing_version(client, name, target.version)
        if version is None:
            fault = "it was deleted"
        elif target.digest is not None and version.digest != target.digest:
            fault = "its digest has changed since then"
        else:
            verdict = evaluate_rollback(client, version, trust_policy)
            if verdict.passed:
                return target, version, verdict
            fault = verdict.refusals[0].message
        skipped.add(target.version)
        notes.append(f"skipped version {target.version}: {fault}")
    why = _lack_of_targets(state, skipped) if to is None else f"version {to} did not hold it before"
    shown = f" ({'; '.join(notes)})" if notes else ""
    raise PromotionError(
        f"stage {stage} of {name} cannot be rolled back: {why}{shown}; see its history: "
        f"registry-tools history {name} --stage {stage}"
    )


def _lack_of_targets(state: StageState, skipped: Collection[int | None]) -> str:
    """Return why a rollback without `to` finds no version, with the command that moves the stage anyway."""
    client, name, stage, left_out = state.log.client, state.log.model, state.stage, {state.held, *skipped}
    for event in history.rollback_targets(state.log, state.head, of_any=True):
        if event.version in left_out or registry.existing_version(client, name, event.version) is None:
            continue
        why = "was set by another tool" if event.action == EXTERNAL else "was rolled back already"
        command = f"registry-tools rollback {name} --stage {stage} --to {event.version} --reason TEXT"
        return f"version {event.version}, which held it before, {why}; to return to it, run {command}"
    return "it held no other version before"


def unset(
    client: MlflowClient, name: str, stage: str, *, reason: str, actor: str | None = None, force: bool = False
) -> Event:
    """Empty a stage; a rollback restores its version. A protected stage needs `force`.

    Raises
    ------
    MoveRefused
        If a gated registry refused the move. The event is recorded as failed.
    PromotionError
        If the reason is empty, or the stage is already empty.
    StageMoved
        If the stage moved in the meantime.
    """
    if not reason.strip():
        raise PromotionError("unset needs --reason: the history shows it")
    check_exists(client, name, stage)
    state = open_stage(client, name, stage, actor)
    if state.held is None:
        raise PromotionError(f"stage {stage} of {name} holds no version: there is nothing to unset")
    if force:
        holder = registry.find_version(client, ModelRef(name, version=state.held))
        allow_force(client, holder, stage, reason)
    return state.move(state.draft(UNSET, None, reason, Verdict(()), forced=force))
