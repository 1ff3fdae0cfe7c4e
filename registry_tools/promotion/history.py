"""Read the history of a model: its events, its rollback targets, and its inconsistencies."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from mlflow import MlflowClient

from registry_tools.mlflow_store.client import Page
from registry_tools.promotion.event import APPLIED, BEGIN, EXTERNAL, OPEN, Event
from registry_tools.promotion.event_log import EventLog
from registry_tools.refs import version_text

_PAGE = 50


def list_events(
    client: MlflowClient, model: str, *, stage: str | None = None, limit: int | None = None
) -> list[Event]:
    """Return the events of a model, newest first.

    Parameters
    ----------
    client, model
        The registry and the name of the model.
    stage
        Return only the events on this stage; None returns those of all stages.
    limit
        The largest number of events; None returns all.

    Raises
    ------
    RegistryToolsError
        If the experiment with the history was deleted.
    """
    return EventLog.find(client, model).search(f" and tags.stage = '{stage}'" if stage else "", limit)


def forced_moves(events: Iterable[Event]) -> list[str]:
    """Return a line for each event that moved a stage by force, in the order of the events."""
    return [
        f"{event.stage} was forced to {version_text(event.version)} by {event.actor} at "
        f"{event.at[:19]}Z: {event.reason}"
        for event in events
        if event.forced and event.outcome == APPLIED
    ]


def events_page(
    client: MlflowClient, model: str, stage: str, size: int, token: str | None = None
) -> Page[Event]:
    """Return one page of the events on a stage, newest first."""
    return EventLog.find(client, model).page(f" and tags.stage = '{stage}'", size, token)


def last_event(client: MlflowClient, model: str, version: int) -> Event | None:
    """Return the newest event on a version, whatever its outcome; None if there is none."""
    found = EventLog.find(client, model).search(f" and tags.version = '{version}'", 1)
    return found[0] if found else None


def last_events(client: MlflowClient, model: str, versions: Collection[int]) -> dict[int, Event]:
    """Return the newest event on each of the given versions of a model."""
    newest = list_events(client, model, limit=_PAGE)
    found = {event.version: event for event in reversed(newest) if event.version in versions}
    if len(newest) == _PAGE:
        others = (last_event(client, model, version) for version in set(versions) - set(found))
        found |= {event.version: event for event in others if event is not None}
    return {version: event for version, event in found.items() if version is not None}


def stage_entry(client: MlflowClient, model: str, stage: str) -> Event | None:
    """Return the newest event on a stage that has not failed; None if there is none."""
    log = EventLog.find(client, model)
    entry = log.entry(log.head(stage))
    return entry if entry.action != BEGIN else None


def rollback_targets(log: EventLog, head: Event, of_any: bool = False) -> Iterator[Event]:
    """Yield the events that a rollback can restore, the nearest first.

    An earlier rollback counts as the event that it restored, so that a second rollback goes further
    back. Moves by other tools are left out.

    Parameters
    ----------
    log, head
        The log, and the last event in the chain of the stage.
    of_any
        Yield every event that moved the stage to a version, including moves by other tools.
    """
    event = _origin(log, head, of_any)
    while event.action != BEGIN:
        event = _origin(log, log.previous(event), of_any)
        if event.version is not None and (of_any or event.action != EXTERNAL):
            yield event


def _origin(log: EventLog, event: Event, of_any: bool) -> Event:
    """Skip failed events, and unless `of_any`, return the event that a rollback restored instead of it."""
    event = log.entry(event)
    while event.rollback_target is not None and not of_any:
        event = log.get(event.rollback_target, event.stage)
    return event


def inconsistencies(
    client: MlflowClient, name: str, held: Mapping[str, int], version: int | None = None
) -> list[str]:
    """Return a line for each stage that does not hold the version of its last event.

    Parameters
    ----------
    client, name
        The registry and the model.
    held
        The version in each of its stages.
    version
        Report only about this version; None reports all.
    """
    log, found = EventLog.find(client, name), []
    for stage in log.stages():
        entry, now = log.entry(log.head(stage)), held.get(stage)
        if entry.action == BEGIN or version not in {None, now, entry.version}:
            continue
        if entry.outcome == OPEN:
            found.append(f"{entry.title} by {entry.actor} was not finished")
        elif entry.version != now:
            moved = f"but its last event set {version_text(entry.version)}: moved externally"
            found.append(f"{stage} is at {version_text(now)}, {moved}")
    return found
