"""Roll a stage back to the version that held it before."""

from __future__ import annotations

from mlflow import MlflowClient

from registry_tools.errors import NotFound, PromotionError
from registry_tools.evaluation.evaluate import evaluate_rollback
from registry_tools.mlflow_store import registry, stages
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.promotion import event_writer, history
from registry_tools.promotion.apply_event import Promotion, apply_event, check_expected
from registry_tools.promotion.event import ROLLBACK
from registry_tools.promotion.recovery import close_on_failure
from registry_tools.refs import ModelRef


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

    Versions that were deleted, or fail the gates on integrity and predictions, are skipped. A
    second rollback skips the version that the first one left.

    Parameters
    ----------
    client, name, stage
        The registry, the model, and its stage in the stored spelling.
    reason, actor
        Why and who, for the history; the actor is the login name if None.
    to
        The version to go back to.
    policy
        What it may contain; as the environment says if None.
    expect_current
        The version that the caller expects in the stage; another one there now is a `StageMoved`.

    Raises
    ------
    PromotionError
        If there is no reason, nothing before, or `to` never held the stage or fails its gates.
    StageMoved
        If the stage moved in the meantime.
    """
    if not reason.strip():
        raise PromotionError("a rollback needs --reason: it stands in the history")
    history.check_not_deleted(client, name)
    held = stages.stage_holder(client, name, stage)
    check_expected(name, stage, held, expect_current)
    notes: list[str] = []
    for target in history.holders_before(client, name, stage, held):
        if target.version in {None, held} or (to is not None and target.version != to):
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
        skipped = f" ({'; '.join(notes)})" if notes else ""
        wanted = (
            f"{name} version {to} did not hold {stage} before"
            if to is not None
            else f"{name} has no version that stage {stage} could go back to"
        )
        raise PromotionError(
            f"{wanted}{skipped}; see who held it: registry-tools history {name} --stage {stage}"
        )
    stages.check_write_access(client, version)
    event = event_writer.begin_event(
        client,
        name,
        action=ROLLBACK,
        stage=stage,
        version=target.version,
        previous_version=held,
        actor=actor or event_writer.current_user(),
        reason=reason,
    )
    with close_on_failure(client, name, event):
        event_writer.record_verdict(client, event, verdict)
        event = apply_event(client, name, event, held, target)
    return Promotion(name, target.version, stage, held, verdict, event, tuple(notes))
