"""Apply an event to its stage: move the alias under the stage lock, and close the event."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from mlflow import MlflowClient

from registry_tools.errors import StageMoved
from registry_tools.evaluation.verdict import Verdict
from registry_tools.mlflow_store import stages
from registry_tools.promotion import event_writer, history, lock
from registry_tools.promotion.event import DONE, SUPERSEDED, Event
from registry_tools.promotion.recovery import close_expired, version_text


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


def apply_event(
    client: MlflowClient, name: str, event: Event, expected: int | None, target: Event | None = None
) -> Event:
    """Move the stage of an event, if it still holds the version that was read before.

    Parameters
    ----------
    client, name, event
        The event, begun and judged.
    expected
        The version that the stage held when the event began.
    target
        The event that a rollback goes back to; None for a promotion.

    Raises
    ------
    StageMoved
        If the stage moved in the meantime; the event is recorded as superseded.
    """
    with lock.stage_lock(client, name, event, partial(close_expired, client, name)):
        held = stages.stage_holder(client, name, event.stage)
        if held != expected:
            event_writer.close_event(client, event, SUPERSEDED)
            raise StageMoved(
                f"stage {event.stage} of {name} moved from {version_text(expected)} to "
                f"{version_text(held)} in the meantime; nothing was moved; check the history and retry"
            )
        last = _record_external_changes(client, name, event, held)
        if target is not None:
            next_target = target.rollback_target
        else:
            next_target = last.run_id if last is not None else None
        assert event.version is not None
        event_writer.mark_applying(client, event)
        stages.move_alias(client, name, event.stage, event.version)
        stages.mirror_legacy_stage(client, name, event.stage, event.version)
        return event_writer.close_event(client, event, DONE, rollback_target=next_target or "")


def _record_external_changes(client: MlflowClient, name: str, event: Event, held: int | None) -> Event | None:
    """Return the event that put the present version there; one is recorded if none is known.

    Called while the event holds the lock, so that it can be recorded between the others.
    """
    last = history.last_stage_event(client, name, event.stage)
    known = last.version if last is not None else None
    if held == known:
        return last
    return event_writer.record_external_event(
        client, name, held, last, history.get_event(client, event.run_id)
    )


def check_expected(name: str, stage: str, held: int | None, expected: int | None) -> None:
    """Check that a stage holds the version that the caller expects; None expects nothing.

    Raises
    ------
    StageMoved
        If another version holds it.
    """
    if expected is not None and held != expected:
        raise StageMoved(
            f"stage {stage} of {name} is at {version_text(held)}, not at version {expected} as "
            "expected; nothing was moved"
        )
