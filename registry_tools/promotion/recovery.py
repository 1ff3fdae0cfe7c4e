"""Keep the history true: close events that a crash left open, record external changes."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from mlflow import MlflowClient

from registry_tools.errors import GateRefused, RegistryToolsError, StageMoved
from registry_tools.evaluation.evaluate import evaluate_rollback
from registry_tools.evaluation.verdict import GateResult, Verdict
from registry_tools.mlflow_store import heartbeat, registered_models, registry, stages
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.promotion import event_writer, history, lock
from registry_tools.promotion.event import DONE, ROLLBACK, SUPERSEDED, UNFINISHED, Event, event_title
from registry_tools.refs import ModelRef

_log = logging.getLogger(__name__)


def repair(client: MlflowClient, name: str, *, actor: str | None = None) -> list[str]:
    """Close the events that a crash left open, record external changes, and return what was done.

    Events in progress are left alone: an open event is watched for a heartbeat first, which takes
    up to `heartbeat.EXPIRY_SECONDS`.
    """
    registered_models.get_registered_model(client, name)
    history.check_not_deleted(client, name)
    done = []
    for event in expired_events(client, name):
        outcome = close_expired(client, name, event)
        done.append(f"{_title(event)} was left open; now {outcome}")
    who = actor or event_writer.current_user()
    for stage in history.stages_moved(client, name):
        done += _record_external_change(client, name, stage, who)
    busy = {event.stage for event in history.open_events(client, name)}
    for stage, version in stages.unmirrored(client, name).items():
        if stage not in busy:
            stages.mirror_legacy_stage(client, name, stage, version)
    return done


def _record_external_change(client: MlflowClient, name: str, stage: str, actor: str) -> list[str]:
    last = history.last_stage_event(client, name, stage)
    held = stages.stage_holder(client, name, stage)
    if last is None or last.version == held:
        return []
    event = event_writer.begin_external_event(client, name, stage, held, last, actor)
    with (
        close_on_failure(client, name, event),
        lock.stage_lock(client, name, event, partial(close_expired, client, name)),
    ):
        newest = history.last_stage_event(client, name, stage)
        if newest != last or stages.stage_holder(client, name, stage) != held:
            event_writer.close_event(client, event, SUPERSEDED)  # an event moved it meanwhile
            return []
        event_writer.close_event(client, event, DONE, rollback_target=last.run_id)
    before, now = last.version or "none", held or "none"
    return [f"{stage} was moved externally from {before} to {now}; recorded"]


def close_expired(client: MlflowClient, name: str, event: Event) -> str:
    """Close an event whose process ended: as done if it had moved the stage, else unfinished."""
    if event.outcome != UNFINISHED:  # ended between the last two writes
        event_writer.close_event(client, event, event.outcome)
        return event.outcome
    if not event.is_applying or stages.stage_holder(client, name, event.stage) != event.version:
        event_writer.close_event(client, event, UNFINISHED)
        return UNFINISHED
    assert event.version is not None
    stages.mirror_legacy_stage(client, name, event.stage, event.version)
    last = history.last_stage_event(client, name, event.stage)
    target = last.run_id if last is not None else ""
    if event.action == ROLLBACK:
        before = history.holders_before(client, name, event.stage, event.previous_version)
        targets = [e.rollback_target or "" for e in before if e.version == event.version]
        target = targets[0] if targets else ""
    event_writer.close_event(client, event, DONE, rollback_target=target)
    return DONE


def expired_events(client: MlflowClient, name: str) -> list[Event]:
    """Return the events that were begun and whose process was killed; oldest first."""
    found = {event.run_id: event for event in history.open_events(client, name)}
    return [found[run_id] for run_id in heartbeat.expired(client, list(found))]


def verify(client: MlflowClient, ref: ModelRef, policy: TrustPolicy) -> Verdict:
    """Check a version's files, format and recorded predictions, and its model's history."""
    version = registry.find_version(client, ref)
    verdict = evaluate_rollback(client, version, policy)
    held = registered_models.stages_of(registered_models.get_registered_model(client, version.name))
    found = inconsistencies(client, version.name, held, version.version)
    message = "; ".join(found) or "each stage is where its last event left it"
    return Verdict((*verdict.gates, GateResult("history", not found, message)))


def inconsistencies(
    client: MlflowClient, name: str, held: Mapping[str, int], version: int | None = None
) -> list[str]:
    """Return what the history does not explain: external changes, events left open.

    Parameters
    ----------
    client, name
        The model.
    held
        The version in each of its stages.
    version
        Only what concerns this version; None for all.
    """
    history.check_not_deleted(client, name)
    found = [
        f"{_title(event)} by {event.actor} was begun and never finished"
        for event in expired_events(client, name)
        if version in {None, event.version, event.previous_version}
    ]
    for stage in history.stages_moved(client, name):
        last, now = history.last_stage_event(client, name, stage), held.get(stage)
        if last is None or last.version == now or version not in {None, now, last.version}:
            continue
        found.append(
            f"{stage} is at {version_text(now)}, the history says {version_text(last.version)}: "
            "moved externally"
        )
    return found


@contextmanager
def close_on_failure(client: MlflowClient, name: str, event: Event) -> Iterator[None]:
    """Send heartbeats, and close the event when its work fails, so that nobody has to wait."""
    try:
        with heartbeat.keep_alive(client, event.run_id):
            yield
    except (GateRefused, StageMoved):
        raise  # closed already, with an outcome of its own
    except BaseException:
        try:
            # It may have moved the stage before it failed: the stage tells the outcome.
            close_expired(client, name, history.get_event(client, event.run_id))
        except RegistryToolsError:
            # The first error is the one to report.
            _log.warning("the event stays open: registry-tools repair closes it (%s)", event.run_id)
        raise


def version_text(version: int | None) -> str:
    """Return a version for a message."""
    return "no version" if version is None else f"version {version}"


def _title(event: Event) -> str:
    return event_title(event.action, event.version, event.stage)
