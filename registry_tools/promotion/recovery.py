"""The record kept true: what a crash left open is closed, what others moved is recorded."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from registry_tools.errors import GateRefused, RegistryToolsError, StageMoved
from registry_tools.evaluation.evaluate import evaluate_rollback
from registry_tools.evaluation.verdict import GateResult, Verdict
from registry_tools.mlflow_store import heartbeat, registry
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.promotion import events, lock
from registry_tools.promotion.events import Event
from registry_tools.refs import ModelRef

if TYPE_CHECKING:
    from mlflow import MlflowClient

_log = logging.getLogger(__name__)


def repair(client: MlflowClient, name: str, *, actor: str | None = None) -> list[str]:
    """Close the acts that a crash left open, and record moves by other means; say what was done.

    Acts under way are left alone: an open act is watched for a sign of life first, which takes up
    to `life.EXPIRY_SECONDS`.
    """
    registry.get_registered_model(client, name)
    events.check_not_deleted(client, name)
    done = []
    for event in expired_events(client, name):
        outcome = finish(client, name, event)
        done.append(f"{_title(event)} was left open; now {outcome}")
    who = actor or events.current_user()
    for stage in events.stages_moved(client, name):
        done += _record_move_by_others(client, name, stage, who)
    busy = {event.stage for event in events.open_events(client, name)}
    for stage, version in registry.unmirrored(client, name).items():
        if stage not in busy:
            registry.mirror_legacy_stage(client, name, stage, version)
    return done


def _record_move_by_others(client: MlflowClient, name: str, stage: str, actor: str) -> list[str]:
    last, held = events.last_done(client, name, stage), registry.stage_holder(client, name, stage)
    if last is None or last.version == held:
        return []
    event = events.begin_external_event(client, name, stage, held, last, actor)
    with (
        under_way(client, name, event),
        lock.turn(client, name, event, finish=partial(finish, client, name)),
    ):
        newest = events.last_done(client, name, stage)
        if newest != last or registry.stage_holder(client, name, stage) != held:
            events.close(client, event, events.SUPERSEDED)  # moved by an act in the meantime
            return []
        events.close(client, event, events.DONE, under=last.run_id)
    before, now = last.version or "none", held or "none"
    return [f"{stage} was moved from {before} to {now} by other means; recorded"]


def finish(client: MlflowClient, name: str, event: Event) -> str:
    """Close an act whose process ended, as what it came to: done if it had moved the stage."""
    if event.outcome != events.UNFINISHED:  # ended between the last two writes
        events.close(client, event, event.outcome)
        return event.outcome
    if not event.is_moving or registry.stage_holder(client, name, event.stage) != event.version:
        events.close(client, event, events.UNFINISHED)
        return events.UNFINISHED
    assert event.version is not None
    registry.mirror_legacy_stage(client, name, event.stage, event.version)
    last = events.last_done(client, name, event.stage)
    under = last.run_id if last is not None else ""
    if event.action == events.ROLLBACK:
        before = list(events.holders_before(client, name, event.stage, event.previous_version))
        under = next((a.under or "" for a in before if a.version == event.version), "")
    events.close(client, event, events.DONE, under=under)
    return events.DONE


def expired_events(client: MlflowClient, name: str) -> list[Event]:
    """Return the acts that were begun and whose process was killed; oldest first."""
    found = {event.run_id: event for event in events.open_events(client, name)}
    return [found[run_id] for run_id in heartbeat.expired(client, list(found))]


def verify(client: MlflowClient, ref: ModelRef, policy: TrustPolicy) -> Verdict:
    """Check a version's files, format and recorded answer, and its model's history."""
    version = registry.find_version(client, ref)
    verdict = evaluate_rollback(client, version, policy)
    stages = registry.stages_of(registry.get_registered_model(client, version.name))
    inconsistent = inconsistencies(client, version.name, stages, version.version)
    explained = GateResult(
        "history",
        not inconsistent,
        "; ".join(inconsistent) or "it is where the last act left it",
    )
    return Verdict((*verdict.gates, explained))


def inconsistencies(
    client: MlflowClient, name: str, stages: Mapping[str, int], version: int | None = None
) -> list[str]:
    """Return what the history does not explain: moves by other means, acts left open.

    Parameters
    ----------
    client, name
        The model.
    stages
        The version in each of its stages.
    version
        Only what concerns this version; None for all.
    """
    events.check_not_deleted(client, name)
    found = [
        f"{_title(event)} by {event.actor} was begun and never finished"
        for event in expired_events(client, name)
        if version in {None, event.version, event.previous_version}
    ]
    for stage in events.stages_moved(client, name):
        last, held = events.last_done(client, name, stage), stages.get(stage)
        if last is None or last.version == held or version not in {None, held, last.version}:
            continue
        found.append(
            f"{stage} is at {shown(held)}, the history says {shown(last.version)}: moved by other "
            "means"
        )
    return found


@contextmanager
def under_way(client: MlflowClient, name: str, event: Event) -> Iterator[None]:
    """Give signs of life, and close the act when its work fails, so that nobody has to wait."""
    try:
        with heartbeat.keep_alive(client, event.run_id):
            yield
    except (GateRefused, StageMoved):
        raise  # closed already, with an outcome of its own
    except BaseException:
        try:
            # It may have moved the stage before it failed: what came of it is looked up.
            finish(client, name, events.get_event(client, event.run_id))
        except RegistryToolsError:
            # The first error is the one to tell.
            _log.warning("the act stays open: registry-tools repair closes it (%s)", event.run_id)
        raise


def shown(version: int | None) -> str:
    """Return a version for a message."""
    return "no version" if version is None else f"version {version}"


def _title(event: Event) -> str:
    return f"{event.action} {event.version or 'none'} → {event.stage}"
