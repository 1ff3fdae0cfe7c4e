"""Promote a version to a stage through the gates, or move a stage to a newly trained version."""

from __future__ import annotations

import difflib
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from registry_tools.errors import AccessDenied, GateRefused, NotFound, PromotionError, StageMoved
from registry_tools.evaluation.evaluate import evaluate
from registry_tools.evaluation.gate_options import GateOptions
from registry_tools.evaluation.verdict import Verdict
from registry_tools.mlflow_store import registered_models, registry, stages
from registry_tools.models.manifest import ONNX_FILE
from registry_tools.models.onnx.export import store_onnx
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
        event = self.event.as_dict() if self.event is not None else None
        return vars(self) | {"verdict": self.verdict.as_dict(), "event": event, "notes": list(self.notes)}


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
        The registry, the candidate, the name of the stage in lower case, and the options of the gates.
    new_stage
        Whether the stage may be a new one.
    actor, reason
        The user and the reason, for the history. If `actor` is None, it is the login name.
    expect_current
        The version that the caller expects in the stage; None accepts any.
    dry_run
        Whether to evaluate the gates only, and record and move nothing.
    force
        Whether to move the stage even if a gate refuses. The event is recorded as forced.

    Raises
    ------
    GateRefused
        If a gate refused; the error has the `Promotion`. The refusal is recorded.
    StageMoved
        If the stage holds another version than `expect_current`, or moved during the evaluation. In
        the second case the event is recorded as superseded.
    NotFound
        If the version does not exist, or the stage does not exist and `new_stage` is false.
    PromotionError
        If `force` or `options.baseline=False` lacks a reason, or the stage already holds the version.
    """
    for option, is_used in (("--force", force), ("--no-baseline", not options.baseline)):
        if is_used and not reason.strip():
            raise PromotionError(f"{option} needs --reason: the history shows it")
    candidate = registry.find_version(client, ref)
    if not new_stage:
        check_exists(client, ref.name, stage)
    state = open_stage(client, ref.name, stage, actor) if not dry_run else read_stage(client, ref.name, stage)
    state.check_expected(expect_current)
    if state.held == candidate.version:
        raise PromotionError(f"stage {stage} already holds {ref.name} version {state.held}")
    champion = registry.existing_version(client, ref.name, state.held or state.last_holder())
    with tempfile.TemporaryDirectory() as scratch:
        onnx_file = Path(scratch, ONNX_FILE)
        verdict = evaluate(client, candidate, champion, options, onnx_file)
        result = Promotion(ref.name, candidate.version, stage, state.held, verdict, None, state.notes)
        if dry_run:
            return result
        # The file is stored before the move, so the stage never lacks it.
        if (verdict.passed or force) and onnx_file.exists():
            store_onnx(client, candidate, onnx_file)
    draft = state.draft(PROMOTE, candidate, reason, verdict, forced=force)
    if verdict.passed or force:
        return replace(result, event=state.move(draft))
    result = replace(result, event=state.refuse(draft))
    raise GateRefused(refusal(result), result)


def check_exists(client: MlflowClient, name: str, stage: str) -> None:
    """Check that a stage exists, because a typing error would create a stage without a champion.

    Raises
    ------
    NotFound
        If the stage does not exist; the message suggests the most similar stage.
    """
    if stage in LEGACY_STAGES:
        return
    held = registered_models.stages_of(registered_models.get_registered_model(client, name))
    known = sorted({*LEGACY_STAGES, *held, *EventLog.find(client, name).stages()})
    if stage not in known:
        near = difflib.get_close_matches(stage, known, 1, 0.3)
        hint = f"did you mean {near[0]}?" if near else f"its stages are {', '.join(known)};"
        raise NotFound(f"{name} has no stage {stage!r}: {hint} --new-stage {stage} creates it")


def refusal(promotion: Promotion) -> str:
    """Return one line with the first gate that refused and its message."""
    first = promotion.verdict.refusals[0]
    more = len(promotion.verdict.refusals) - 1
    return (
        f"{promotion.name} version {promotion.version} was not promoted to {promotion.stage}: "
        f"{first.gate}: {first.message}" + (f" (and {more} more)" if more else "")
    )


def register(client: MlflowClient, name: str, version: int, stage: str) -> None:
    """Move a stage to a version that a training just registered, without gates.

    Raises
    ------
    StageMoved
        If other clients moved the stage during each of the attempts.
    """
    info = registry.find_version(client, ModelRef(name, version=version))
    for _ in range(_REGISTER_ATTEMPTS):
        try:
            state = open_stage(client, name, stage, None)
            state.move(state.draft(REGISTER, info, "trained", Verdict(())))
            return
        except AccessDenied:  # this user may not write the history; the next command records the move
            stages.move_alias(client, name, stage, version)
            stages.mirror_legacy_stages(client, name)
            return
        except StageMoved:
            continue
    raise StageMoved(
        f"other clients moved stage {stage} of {name} during all {_REGISTER_ATTEMPTS} attempts: retry"
    )
