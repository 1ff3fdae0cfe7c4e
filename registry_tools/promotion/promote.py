"""Promote a version to a stage, through the gates; move a training's stage to its new version."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mlflow import MlflowClient

from registry_tools.errors import AccessDenied, GateRefused, NotFound, PromotionError, StageMoved
from registry_tools.evaluation.evaluate import evaluate
from registry_tools.evaluation.gate_options import GateOptions
from registry_tools.evaluation.verdict import Verdict
from registry_tools.mlflow_store import registered_models, registry, stages
from registry_tools.promotion.event import PROMOTE, REGISTER, Event
from registry_tools.promotion.event_log import EventLog
from registry_tools.promotion.moves import open_stage, read_stage
from registry_tools.refs import LEGACY_STAGES, ModelRef

_REGISTER_ATTEMPTS = 10


@dataclass(frozen=True)
class Promotion:
    """The result of a promotion or a rollback; `event` is None after a dry run."""

    name: str
    version: int
    stage: str
    previous_version: int | None
    verdict: Verdict
    event: Event | None
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            "name": self.name,
            "version": self.version,
            "stage": self.stage,
            "previous_version": self.previous_version,
            "verdict": self.verdict.as_dict(),
            "event": self.event.as_dict() if self.event is not None else None,
            "notes": list(self.notes),
        }


def promote(
    client: MlflowClient,
    ref: ModelRef,
    stage: str,
    options: GateOptions,
    *,
    new_stage: bool = False,
    actor: str | None = None,
    reason: str = "",
    expect_current: int | None = None,
    dry_run: bool = False,
    force: bool = False,
) -> Promotion:
    """Evaluate a version and, if every gate passes, move the stage to it.

    Parameters
    ----------
    client, ref, stage, options
        The registry, the candidate, the stage to move in its stored spelling, and the gates' options.
    new_stage
        The stage may be a new one.
    actor, reason
        Who and why, for the history; the actor is the login name if None.
    expect_current
        The version that the caller expects in the stage; another one there now is a `StageMoved`.
    dry_run
        Evaluate only; nothing is recorded or changed.
    force
        Move the stage although a gate refused; recorded as forced.

    Raises
    ------
    GateRefused
        If a gate refused; it carries the `Promotion`. The refusal is recorded.
    StageMoved
        If the stage moved during the evaluation. The event is recorded as superseded.
    NotFound
        If there is no such version, or no such stage and `new_stage` is false.
    PromotionError
        If `force` or `options.baseline=False` comes without a reason, or the version is in the
        stage already.
    """
    _check_reason(reason, {"--force": force, "--no-baseline": not options.baseline})
    candidate = registry.get_version(client, ref)
    if not new_stage:
        check_exists(client, ref.name, stage)
    state = open_stage(client, ref.name, stage, actor) if not dry_run else read_stage(client, ref.name, stage)
    state.check_expected(expect_current)
    if state.held == candidate.version:
        raise PromotionError(f"{ref.name} version {state.held} is in stage {stage} already")
    champion = _find_version(client, ref.name, state.held or state.last_holder())
    verdict = evaluate(client, candidate, champion, options)
    result = Promotion(ref.name, candidate.version, stage, state.held, verdict, None, state.notes)
    if dry_run:
        return result
    draft = state.draft(PROMOTE, candidate, reason, verdict, forced=force)
    if verdict.passed or force:
        return replace(result, event=state.move(draft))
    result = replace(result, event=state.refuse(draft))
    raise GateRefused(refusal(result), result)


def _check_reason(reason: str, used: Mapping[str, bool]) -> None:
    for option, is_used in used.items():
        if is_used and not reason.strip():
            raise PromotionError(f"{option} needs --reason: it stands in the history")


def check_exists(client: MlflowClient, name: str, stage: str) -> None:
    """Check that a stage exists: a typing error would open a new one, without a champion.

    Raises
    ------
    NotFound
        If not; the message names the nearest stage.
    """
    if stage in LEGACY_STAGES:
        return
    held = registered_models.stages_of(registered_models.get_registered_model(client, name))
    known = sorted({*LEGACY_STAGES, *held, *EventLog.find(client, name).stages()})
    if stage not in known:
        near = difflib.get_close_matches(stage, known, 1, 0.3)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)};"
        raise NotFound(f"{name} has no stage {stage!r}: {hint} --new-stage {stage} opens it")


def _find_version(client: MlflowClient, name: str, version: int | None) -> registry.VersionInfo | None:
    """Return a version; None if it was deleted."""
    try:
        return registry.get_version(client, ModelRef(name, version=version)) if version else None
    except NotFound:
        return None


def refusal(promotion: Promotion) -> str:
    """Return in one line which gate refused, and why."""
    first = promotion.verdict.refusals[0]
    more = len(promotion.verdict.refusals) - 1
    return (
        f"{promotion.name} version {promotion.version} was not promoted to {promotion.stage}: "
        f"{first.gate}: {first.message}" + (f" (and {more} more)" if more else "")
    )


def register(client: MlflowClient, name: str, version: int, stage: str) -> None:
    """Move a stage to a version that a training has just registered, without gates.

    Raises
    ------
    StageMoved
        If other clients moved the stage each time that this one tried to.
    """
    info = registry.find_version(client, ModelRef(name, version=version))
    for _ in range(_REGISTER_ATTEMPTS):
        try:
            state = open_stage(client, name, stage, None)
            state.move(state.draft(REGISTER, info, "trained", Verdict(())))
            return
        except AccessDenied:  # this user may not write the history: the next command records the move
            stages.move_alias(client, name, stage, version)
            stages.mirror_legacy_stages(client, name)
            return
        except StageMoved:
            continue
    raise StageMoved(f"other clients moved stage {stage} of {name} {_REGISTER_ATTEMPTS} times meanwhile")
