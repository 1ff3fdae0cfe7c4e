"""Promote a version to a stage, through the gates."""

from __future__ import annotations

from mlflow import MlflowClient

from registry_tools.errors import GateRefused, NotFound, PromotionError
from registry_tools.evaluation.evaluate import evaluate
from registry_tools.evaluation.gate_options import GateOptions
from registry_tools.evaluation.verdict import GateResult
from registry_tools.mlflow_store import registry, stages
from registry_tools.mlflow_store.registry import VersionInfo
from registry_tools.promotion import event_writer, history
from registry_tools.promotion.apply_event import Promotion, apply_event, check_expected
from registry_tools.promotion.event import PROMOTE, REFUSED
from registry_tools.promotion.recovery import close_on_failure
from registry_tools.refs import ModelRef


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
        Who and why, for the history; the actor is the login name if None.
    expect_current
        The version that the caller expects in the stage; another one there now is a `StageMoved`.
    dry_run
        Judge, and record and change nothing.
    force
        Move the stage whatever the gates say; recorded as forced.

    Raises
    ------
    GateRefused
        If a gate refused; it carries the `Promotion`. The refusal is recorded.
    StageMoved
        If the stage moved while the candidate was judged. The event is recorded as superseded.
    PromotionError
        If `force` or `options.baseline=False` comes without a reason, or the version is in the
        stage already.
    """
    if force and not reason.strip():
        raise PromotionError("--force needs --reason: it stands in the history")
    if not options.baseline and not reason.strip():
        raise PromotionError("--no-baseline needs --reason: it stands in the history")
    candidate = registry.get_version(client, ref)
    held = stages.stage_holder(client, ref.name, stage)
    check_expected(ref.name, stage, held, expect_current)
    if held == candidate.version:
        raise PromotionError(f"{ref.name} version {held} is in stage {stage} already")
    champion = _champion(client, ref.name, stage, held)
    if dry_run:
        verdict = evaluate(client, candidate, champion, options)
        return Promotion(ref.name, candidate.version, stage, held, verdict, None)
    stages.check_write_access(client, candidate)
    event = event_writer.begin_event(
        client,
        ref.name,
        action=PROMOTE,
        stage=stage,
        version=candidate.version,
        previous_version=held,
        actor=actor or event_writer.current_user(),
        reason=reason,
        forced=force,
    )
    with close_on_failure(client, ref.name, event):
        verdict = evaluate(client, candidate, champion, options)
        event_writer.record_verdict(client, event, verdict)
        if not verdict.passed and not force:
            event = event_writer.close_event(client, event, REFUSED)
            refused = Promotion(ref.name, candidate.version, stage, held, verdict, event)
            raise GateRefused(refusal(refused), refused)
        event = apply_event(client, ref.name, event, held)
    return Promotion(ref.name, candidate.version, stage, held, verdict, event)


def _champion(client: MlflowClient, name: str, stage: str, held: int | None) -> VersionInfo | None:
    """Return the version to be compared with: the stage's or, where others emptied it, its last."""
    if held is not None:
        return registry.get_version(client, ModelRef(name, version=held))
    last = history.last_stage_event(client, name, stage)
    if last is None or last.version is None:
        return None
    try:
        return registry.get_version(client, ModelRef(name, version=last.version))
    except NotFound:
        return None


def refusal(promotion: Promotion) -> str:
    """Return in one line which gate refused, and why."""
    first: GateResult = promotion.verdict.refusals[0]
    more = len(promotion.verdict.refusals) - 1
    return (
        f"{promotion.name} version {promotion.version} was not promoted to {promotion.stage}: "
        f"{first.gate}: {first.message}" + (f" (and {more} more gates)" if more else "")
    )
