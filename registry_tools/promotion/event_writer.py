"""Write an event to MLflow: begin it, log its verdict, mark it as applying, close it."""

from __future__ import annotations

import getpass
import json
import os
import time

from mlflow import MlflowClient
from mlflow.entities import Metric, RunStatus, RunTag

from registry_tools.evaluation.verdict import Verdict
from registry_tools.mlflow_store.client import translate_errors
from registry_tools.promotion import history
from registry_tools.promotion.event import (
    APPLYING,
    DONE,
    EVENT_KIND,
    PROMOTE,
    ROLLBACK_TARGET,
    SEQUENCE,
    UNFINISHED,
    Event,
    event_from_run,
    event_title,
)

_RUN_NAME = "mlflow.runName"


def begin_event(
    client: MlflowClient,
    model: str,
    *,
    action: str,
    stage: str,
    version: int | None,
    previous_version: int | None,
    actor: str,
    reason: str,
    forced: bool = False,
    external: bool = False,
    start_time: int | None = None,
) -> Event:
    """Record that an event has begun; until it is closed its outcome is `unfinished`."""
    with translate_errors(client.tracking_uri):
        tags = {
            _RUN_NAME: event_title(action, version, stage),
            "mlflow.user": actor,
            "kind": EVENT_KIND,
            "action": action,
            "outcome": UNFINISHED,
            "stage": stage,
            "version": str(version or ""),
            "previous_version": str(previous_version or ""),
            "actor": actor,
            "reason": reason,
            "forced": str(forced).lower(),
            "external": str(external).lower(),
        }
        experiment_id = history.find_or_make_experiment(client, model)
        return event_from_run(client.create_run(experiment_id, start_time, tags))


def record_external_event(
    client: MlflowClient, model: str, held: int | None, last: Event | None, event: Event
) -> Event:
    """Record, while an event holds the stage lock, that others moved the stage before it."""
    external = begin_external_event(
        client, model, event.stage, held, last, event.actor, start_time=event.begun - 1
    )
    if event.sequence is not None:
        with translate_errors(client.tracking_uri):
            client.log_metric(external.run_id, SEQUENCE, event.sequence - 0.5)
    return close_event(client, external, DONE, rollback_target=last.run_id if last else None)


def begin_external_event(
    client: MlflowClient,
    model: str,
    stage: str,
    held: int | None,
    last: Event | None,
    actor: str,
    start_time: int | None = None,
) -> Event:
    """Begin to record an external change of a stage."""
    return begin_event(
        client,
        model,
        action=PROMOTE,
        stage=stage,
        version=held,
        previous_version=last.version if last else None,
        actor=actor,
        reason="external change, recorded afterwards",
        forced=True,
        external=True,
        start_time=start_time,
    )


def record_verdict(client: MlflowClient, event: Event, verdict: Verdict) -> None:
    """Log the gates of an event: their values as metrics, all of it as `verdict.json`."""
    now = time.time_ns() // 1_000_000
    with translate_errors(client.tracking_uri):
        client.log_dict(event.run_id, verdict.as_dict(), "verdict.json")
        metrics = [
            Metric(f"{gate.gate}.{name}", value, now, 0)
            for gate in verdict.gates
            for name, value in gate.metrics.items()
        ]
        # A tag holds 8,000 characters; verdict.json has each message whole.
        gates = [
            {"gate": gate.gate, "passed": gate.passed, "message": gate.message[:500]}
            for gate in verdict.gates
        ]
        tag = RunTag("gates", json.dumps(gates, ensure_ascii=False))
        client.log_batch(event.run_id, metrics=metrics, tags=[tag])


def mark_applying(client: MlflowClient, event: Event) -> None:
    """Record that an event moves the stage now: if its process ends here, the stage tells which."""
    with translate_errors(client.tracking_uri):
        client.set_tag(event.run_id, APPLYING, "true")


def close_event(
    client: MlflowClient, event: Event, outcome: str, *, rollback_target: str | None = None
) -> Event:
    """Record how an event ended."""
    with translate_errors(client.tracking_uri):
        tags = [RunTag("outcome", outcome)]
        if outcome != DONE:  # to be seen in a list of runs, all of which ended well
            title = event_title(event.action, event.version, event.stage)
            tags.append(RunTag(_RUN_NAME, f"{title}, {outcome}"))
        if rollback_target is not None:
            tags.append(RunTag(ROLLBACK_TARGET, rollback_target))
        client.log_batch(event.run_id, tags=tags)
        if outcome == DONE:
            history.set_last_event(client, event)
        status = RunStatus.KILLED if outcome == UNFINISHED else RunStatus.FINISHED
        client.set_terminated(event.run_id, RunStatus.to_string(status))
        return event_from_run(client.get_run(event.run_id))


def current_user() -> str:
    """Return who signs in to the registry, else the login name, for the history."""
    signed_in = os.environ.get("MLFLOW_TRACKING_USERNAME")
    if signed_in:
        return signed_in
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
