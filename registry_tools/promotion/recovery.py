"""Repair the history of a model, and verify a version with its history."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from mlflow import MlflowClient

from registry_tools.errors import BrokenHistory
from registry_tools.evaluation.evaluate import evaluate_rollback
from registry_tools.evaluation.verdict import GateResult, Verdict
from registry_tools.mlflow_store import registered_models, registry, stages
from registry_tools.mlflow_store.client import current_user
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.policy.definition import Policy
from registry_tools.policy.tag_names import HEAD
from registry_tools.promotion import history
from registry_tools.promotion.event import APPLIED, EXTERNAL, OPEN, SUPERSEDED, Event
from registry_tools.promotion.event_log import EventLog
from registry_tools.promotion.moves import roll_forward
from registry_tools.promotion.stage_evidence import verdict_checks
from registry_tools.refs import ModelRef

# After this time a client is no longer at work, so that its mark can be removed.
_OLD_MARK = timedelta(days=1)


def repair(
    client: MlflowClient, name: str, *, actor: str | None = None, new_chain: bool = False
) -> list[str]:
    """Finish the events that a crash left open, record external moves, and set the legacy stages.

    Parameters
    ----------
    client, name
        The registry and the model.
    actor
        The user, for the history; None takes the login name.
    new_chain
        Whether to start a new chain for each stage whose history cannot be restored.

    Returns
    -------
    list
        A line of text for each change.
    """
    model = registered_models.get_registered_model(client, name)
    # A gated registry counts the moves of its stages, also those that no command has recorded yet.
    counted = {key.removeprefix(f"{HEAD}.") for key in model.tags if key.startswith(f"{HEAD}.")}
    log = EventLog.find_or_make(client, name) if counted else EventLog.find(client, name)
    who, done = actor or current_user(), []
    old = datetime.now(timezone.utc) - _OLD_MARK
    if new_chain:
        log = log.with_root()
    for stage in sorted({*log.stages(), *counted}):
        if new_chain:
            done += _begin_new_chain(log, stage, who)
        done += roll_forward(log, stage, who, cancel=True).notes
        for mark, event in log.marked(log.progress(stage), stage).items():
            if event is None or (event.at and datetime.fromisoformat(event.at) < old):
                log.remove_mark(mark)
    for event in log.search(" and attributes.status = 'RUNNING'"):
        if event.outcome != OPEN:  # its client was killed after it wrote the outcome
            log.close(event, event.outcome)
        elif not log.is_claimed(event):
            done.append(f"{event.title} was not completed; now {log.close(event, SUPERSEDED)}")
    stages.mirror_legacy_stages(client, name, *(int(v.version) for v in model.latest_versions))
    return done


def _begin_new_chain(log: EventLog, stage: str, actor: str) -> list[str]:
    try:
        log.head(stage)
        return []
    except BrokenHistory as error:
        if error.can_be_restored:
            raise
    last = log.last_known(stage)
    held = stages.stage_holder(log.client, log.model, stage)
    draft = Event(EXTERNAL, stage, held, last.version, actor, "a part of the history was removed")
    event = log.record(draft, last)
    log.close(event, APPLIED)
    log.set_head(event)
    return [f"{stage} has a new chain, from event {event.sequence}"]


def verify(
    client: MlflowClient, ref: ModelRef, trust_policy: TrustPolicy, policy: Policy | None = None
) -> Verdict:
    """Check the files, format, recorded predictions and verdicts of a version, and its model's history.

    Parameters
    ----------
    client, ref
        The registry and the version.
    trust_policy
        The types and formats to trust, and the key whose signature is required, if any.
    policy
        The policy of the registry, to check verdicts by; None only reports them.

    Returns
    -------
    Verdict
        The results of the gates `integrity` and `predictions`, of the check `history`, and of the check
        `verdict` for each stage with a verdict or with rules.

    Raises
    ------
    NotFound
        If the model, the version or the stage does not exist.
    """
    version = registry.find_version(client, ref)
    verdict = evaluate_rollback(client, version, trust_policy)
    model = registered_models.get_registered_model(client, version.name)
    held = registered_models.stages_of(model)
    found = history.inconsistencies(client, version.name, held, version.version)
    message = "; ".join(found) or "each stage holds the version of its last event"
    verdicts = verdict_checks(version, model.tags, policy)
    return Verdict((*verdict.gates, GateResult("history", not found, message), *verdicts))
