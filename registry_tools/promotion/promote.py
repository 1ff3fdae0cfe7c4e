"""Promote a version to a stage through the gates, or move a stage to a newly trained version."""

from __future__ import annotations

import difflib
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from registry_tools.errors import AccessDenied, GateRefused, MoveRefused, NotFound, PromotionError, StageMoved
from registry_tools.evaluation.evaluate import evaluate
from registry_tools.evaluation.gate_options import GateOptions
from registry_tools.evaluation.verdict import Verdict
from registry_tools.mlflow_store import registered_models, registry, stages
from registry_tools.mlflow_store.registry import VersionInfo
from registry_tools.models.manifest import ONNX_FILE
from registry_tools.models.onnx.export import store_onnx
from registry_tools.policy.decision import missing
from registry_tools.policy.definition import Policy, StagePolicy
from registry_tools.promotion.event import PROMOTE, REFUSED, REGISTER, Event
from registry_tools.promotion.event_log import EventLog
from registry_tools.promotion.moves import StageState, open_stage, read_stage
from registry_tools.promotion.protected_stage import (
    allow_force,
    check_options,
    evidence_verdict,
    protected_by,
)
from registry_tools.promotion.stage_evidence import read_move
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
    policy: Policy | None = None,
) -> Promotion:
    """Evaluate a version and, if every gate passes, move the stage to it.

    If a policy protects the stage, no gates run: the evidence of the version decides.

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
    policy
        The policy of the registry, as this client knows it; None if it has none.

    Raises
    ------
    GateRefused
        If a gate refused; the error has the `Promotion`. The refusal is recorded.
    MoveRefused
        If a gated registry refused the move. The event is recorded as failed.
    StageMoved
        If the stage holds another version than `expect_current`, or moved during the evaluation. In
        the second case the event is recorded as superseded.
    NotFound
        If the version does not exist, or the stage does not exist and `new_stage` is false.
    PromotionError
        If `force` or `options.baseline=False` lacks a reason, the stage already holds the version, or
        `options` contradict a policy.
    """
    rules = protected_by(policy, ref.name, stage)
    _check_options(options, force, reason, rules)
    candidate = registry.find_version(client, ref)
    if not new_stage and rules is None:
        check_exists(client, ref.name, stage)
    state = open_stage(client, ref.name, stage, actor) if not dry_run else read_stage(client, ref.name, stage)
    state.check_expected(expect_current)
    if state.held == candidate.version:
        raise PromotionError(f"stage {stage} already holds {ref.name} version {state.held}")
    if policy is not None and rules is not None:
        verdict = evidence_verdict(policy, read_move(client, candidate, stage))
    else:
        verdict = _run_gates(client, candidate, state, options, keeps_onnx=not dry_run, force=force)
    result = Promotion(ref.name, candidate.version, stage, state.held, verdict, None, state.notes)
    if dry_run:
        return result
    draft = state.draft(PROMOTE, candidate, reason, verdict, forced=force)
    if not verdict.passed and not force:
        result = replace(result, event=state.note(draft, REFUSED))
        raise GateRefused(refusal(result), result)
    return replace(result, event=_move(state, candidate, draft, policy if rules is not None else None))


def _check_options(options: GateOptions, force: bool, reason: str, rules: StagePolicy | None) -> None:
    if rules is not None:
        check_options(rules, options)
    for option, is_used in (("--force", force), ("--no-baseline", not options.baseline)):
        if is_used and not reason.strip():
            raise PromotionError(f"{option} needs --reason: the history shows it")


def _run_gates(
    client: MlflowClient,
    candidate: VersionInfo,
    state: StageState,
    options: GateOptions,
    *,
    keeps_onnx: bool,
    force: bool,
) -> Verdict:
    champion = registry.existing_version(client, candidate.name, state.held or state.last_holder())
    with tempfile.TemporaryDirectory() as scratch:
        onnx_file = Path(scratch, ONNX_FILE)
        verdict = evaluate(client, candidate, champion, options, onnx_file)
        # The file is stored before the move, so the stage never lacks it.
        if keeps_onnx and (verdict.passed or force) and onnx_file.exists():
            store_onnx(client, candidate, onnx_file)
    return verdict


def _move(state: StageState, candidate: VersionInfo, draft: Event, policy: Policy | None) -> Event:
    """Move a stage; add to a refusal of the registry whether this client has no policy or another one."""
    client = state.log.client
    if draft.forced and policy is not None:
        allow_force(client, candidate, state.stage, draft.reason)
    try:
        return state.move(draft)
    except MoveRefused as error:
        note = ""
        if policy is None:
            note = "; to force it, name the policy of the registry with --policy FILE" if draft.forced else ""
        elif not missing(policy, read_move(client, _again(client, candidate), state.stage)):
            note = "; your copy of the policy allows the move, but that of the registry decides"
        raise MoveRefused(f"{error}{note}") from error


def _again(client: MlflowClient, version: VersionInfo) -> VersionInfo:
    return registry.find_version(client, ModelRef(version.name, version=version.version))


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
