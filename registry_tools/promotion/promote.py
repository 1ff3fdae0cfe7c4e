"""The acts that move a stage, promote and rollback, and the deletion that respects them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from registry_tools.errors import (
    GateRefused,
    NotFound,
    PromotionError,
    StageMoved,
)
from registry_tools.evaluation.evaluate import evaluate, evaluate_rollback
from registry_tools.evaluation.gate_options import GateOptions
from registry_tools.evaluation.verdict import GateResult, Verdict
from registry_tools.mlflow_store import registry
from registry_tools.mlflow_store.registry import VersionInfo
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.promotion import events, lock
from registry_tools.promotion.events import Event
from registry_tools.promotion.recovery import finish, shown, under_way
from registry_tools.refs import ModelRef

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class Promotion:
    """What came of asking for a promotion or a rollback; `event` is None after a dry run."""

    name: str
    version: int
    stage: str
    previous_version: int | None
    verdict: Verdict
    event: Event | None
    notes: tuple[str, ...] = ()


def promote(
    client: MlflowClient,
    ref: ModelRef,
    stage: str,
    options: GateOptions,
    *,
    actor: str | None = None,
    reason: str = "",
    expect_current: int | None = None,
    dry_run: bool = False,
    force: bool = False,
) -> Promotion:
    """Judge a version and, if every gate lets it through, move the stage to it.

    Parameters
    ----------
    client
        The registry.
    ref
        The candidate.
    stage
        The stage to move, in its stored spelling.
    options
        What the gates ask for.
    actor, reason
        Who and why, for the record; the actor is the login name if None.
    expect_current
        The version that the caller saw in the stage; another one there now is a `StageMoved`.
    dry_run
        Judge, and record and change nothing.
    force
        Move the stage whatever the gates say; recorded as forced.

    Raises
    ------
    GateRefused
        If a gate refused; it carries the `Promotion`. The refusal is recorded.
    StageMoved
        If the stage moved while the candidate was judged. The act is recorded as superseded.
    PromotionError
        If `force` comes without a reason, or the version is in the stage already.
    """
    if force and not reason.strip():
        raise PromotionError("--force needs --reason: it stands in the history")
    candidate = registry.get_version(client, ref)
    seen = registry.stage_holder(client, ref.name, stage)
    _check_expected(ref.name, stage, seen, expect_current)
    if seen == candidate.version:
        raise PromotionError(f"{ref.name} version {seen} is in stage {stage} already")
    champion = _champion(client, ref.name, stage, seen)
    if dry_run:
        verdict = evaluate(client, candidate, champion, options)
        return Promotion(ref.name, candidate.version, stage, seen, verdict, None)
    registry.prove_may_write(client, candidate)
    event = events.begin_event(
        client,
        ref.name,
        action=events.PROMOTE,
        stage=stage,
        version=candidate.version,
        previous_version=seen,
        actor=actor or events.current_user(),
        reason=reason,
        forced=force,
    )
    with under_way(client, ref.name, event):
        verdict = evaluate(client, candidate, champion, options)
        events.record_verdict(client, event, verdict)
        if not verdict.passed and not force:
            event = events.close(client, event, events.REFUSED)
            refused = Promotion(ref.name, candidate.version, stage, seen, verdict, event)
            raise GateRefused(refusal(refused), refused)
        event = _move(client, ref.name, event, seen)
    return Promotion(ref.name, candidate.version, stage, seen, verdict, event)


def _move(
    client: MlflowClient, name: str, event: Event, seen: int | None, below: Event | None = None
) -> Event:
    """Move the stage in the act's turn, if it still stands where it was when it was looked at."""
    with lock.turn(client, name, event, finish=partial(finish, client, name)):
        held = registry.stage_holder(client, name, event.stage)
        if held != seen:
            events.close(client, event, events.SUPERSEDED)
            raise StageMoved(
                f"stage {event.stage} of {name} moved from {shown(seen)} to {shown(held)} in the "
                "meantime; nothing was moved: look again, and repeat"
            )
        last = _record_moves_by_others(client, name, event, held)
        under = below.under if below is not None else last.run_id if last is not None else None
        assert event.version is not None
        events.mark_moving(client, event)
        registry.move_alias(client, name, event.stage, event.version)
        registry.mirror_legacy_stage(client, name, event.stage, event.version)
        return events.close(client, event, events.DONE, under=under or "")


def _record_moves_by_others(
    client: MlflowClient, name: str, event: Event, held: int | None
) -> Event | None:
    """Return the act that put the present version there; one is recorded if none is known.

    Called in an act's turn, so that it can be recorded between the others.
    """
    last = events.last_done(client, name, event.stage)
    known = last.version if last is not None else None
    if held == known:
        return last
    return events.record_external_event(
        client, name, held, last, events.get_event(client, event.run_id)
    )


def rollback(
    client: MlflowClient,
    name: str,
    stage: str,
    *,
    reason: str,
    to: int | None = None,
    actor: str | None = None,
    policy: TrustPolicy | None = None,
    expect_current: int | None = None,
) -> Promotion:
    """Move a stage back to the version that held it before, or to `to`, which held it once.

    Versions that were deleted, or fail the gates on integrity and answers, are passed over. What a
    rollback left is not come back to by the next: it goes one further back.

    Parameters
    ----------
    client, name, stage
        The registry, the model, and its stage in the stored spelling.
    reason, actor
        Why and who, for the record; the actor is the login name if None.
    to
        The version to go back to.
    policy
        What it may contain; as the environment says if None.
    expect_current
        The version that the caller saw in the stage; another one there now is a `StageMoved`.

    Raises
    ------
    PromotionError
        If there is no reason, nothing before, or `to` never held the stage or fails its gates.
    StageMoved
        If the stage moved in the meantime.
    """
    if not reason.strip():
        raise PromotionError("a rollback needs --reason: it stands in the history")
    events.check_not_deleted(client, name)
    seen = registry.stage_holder(client, name, stage)
    _check_expected(name, stage, seen, expect_current)
    notes: list[str] = []
    for target in events.holders_before(client, name, stage, seen):
        if target.version in {None, seen} or (to is not None and target.version != to):
            continue
        try:
            version = registry.get_version(client, ModelRef(name, version=target.version))
        except NotFound:
            notes.append(f"version {target.version} was deleted")
            continue
        verdict = evaluate_rollback(client, version, policy or TrustPolicy.from_environment())
        if verdict.passed:
            break
        notes.append(f"version {target.version}: {verdict.refusals[0].message}")
    else:
        passed_over = f" ({'; '.join(notes)})" if notes else ""
        wanted = (
            f"{name} version {to} did not hold {stage} before"
            if to is not None
            else f"{name} has no version that stage {stage} could go back to"
        )
        raise PromotionError(
            f"{wanted}{passed_over}; see who held it: registry-tools history {name} --stage {stage}"
        )
    registry.prove_may_write(client, version)
    event = events.begin_event(
        client,
        name,
        action=events.ROLLBACK,
        stage=stage,
        version=target.version,
        previous_version=seen,
        actor=actor or events.current_user(),
        reason=reason,
    )
    with under_way(client, name, event):
        events.record_verdict(client, event, verdict)
        event = _move(client, name, event, seen, below=target)
    return Promotion(name, target.version, stage, seen, verdict, event, tuple(notes))


def delete(client: MlflowClient, ref: ModelRef) -> VersionInfo:
    """Delete a version that no stage holds and no rollback would take.

    Raises
    ------
    PromotionError
        If one does; the message names the stage.
    """
    version = registry.get_version(client, ref)
    if version.stages:
        raise PromotionError(
            f"{version.name} version {version.version} is in {', '.join(version.stages)}: "
            "promote another version there first"
        )
    stages = registry.stages_of(registry.get_registered_model(client, version.name))
    for stage in sorted({*stages, *events.stages_moved(client, version.name)}):
        target = _next_holder(client, version.name, stage, stages.get(stage))
        if target == version.version:
            raise PromotionError(
                f"{version.name} version {version.version} is what a rollback of {stage} would go "
                "back to: keep it until another version has been promoted twice"
            )
    registry.delete_version(client, version.name, version.version)
    return version


def _check_expected(name: str, stage: str, seen: int | None, expected: int | None) -> None:
    if expected is not None and seen != expected:
        raise StageMoved(
            f"stage {stage} of {name} is at {shown(seen)}, not at version {expected} as expected; "
            "nothing was moved"
        )


def _champion(client: MlflowClient, name: str, stage: str, seen: int | None) -> VersionInfo | None:
    """Return the version to be compared with: the stage's or, where others emptied it, its last."""
    if seen is not None:
        return registry.get_version(client, ModelRef(name, version=seen))
    last = events.last_done(client, name, stage)
    if last is None or last.version is None:
        return None
    try:
        return registry.get_version(client, ModelRef(name, version=last.version))
    except NotFound:
        return None


def _next_holder(client: MlflowClient, name: str, stage: str, held: int | None) -> int | None:
    """Return the version that a rollback would go back to, unless its gates refuse it."""
    for event in events.holders_before(client, name, stage, held):
        if event.version in {None, held}:
            continue
        try:
            registry.find_version(client, ModelRef(name, version=event.version))
        except NotFound:
            continue
        return event.version
    return None


def refusal(promotion: Promotion) -> str:
    """Return in one line which gate refused, and why."""
    first: GateResult = promotion.verdict.refusals[0]
    more = len(promotion.verdict.refusals) - 1
    return (
        f"{promotion.name} version {promotion.version} was not promoted to {promotion.stage}: "
        f"{first.gate}: {first.message}" + (f" (and {more} more gates)" if more else "")
    )
