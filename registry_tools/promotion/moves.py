"""Move a stage: append an event to its chain, and set the alias to the version of the newest event.

Any client can apply any claimed event, and several clients can apply the same one. A slow client may
set the alias to an older version after a newer event was applied. So each client marks the event first;
afterwards it looks for a newer event and applies that one. If its process is killed in between, the
mark remains, and the next command restores the stage.

A gated registry may refuse to set the alias. Then the event fails, and the stage stays where it is.
There a version that once held the stage returns by the role of the user who asks. So no client moves the
stage to such a version for the event of another one: it would use the rights of the wrong user.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from mlflow import MlflowClient

from registry_tools.errors import MoveRefused, PromotionError, RegistryToolsError, StageMoved
from registry_tools.evaluation.verdict import Verdict
from registry_tools.mlflow_store import registry, stages
from registry_tools.mlflow_store.client import current_user
from registry_tools.mlflow_store.registry import VersionInfo
from registry_tools.mlflow_store.tags import DELETING_TAG
from registry_tools.policy.tag_names import held_tag
from registry_tools.promotion.event import (
    APPLIED,
    EXTERNAL,
    FAILED,
    OPEN,
    PROMOTE,
    ROLLBACK,
    SUPERSEDED,
    UNSET,
    Event,
)
from registry_tools.promotion.event_log import EventLog
from registry_tools.promotion.protected_stage import last_move
from registry_tools.refs import version_text

_log = logging.getLogger(__name__)
_LONGEST_TEXT = 1_000  # characters


@dataclass(frozen=True)
class StageState:
    """A stage with the last event of its chain and the version that it holds."""

    log: EventLog
    stage: str
    actor: str
    head: Event
    held: int | None
    notes: tuple[str, ...] = ()  # a line for each repair during the reading of the stage
    completed: Event | None = None  # an event that a killed or slow client left open, now closed

    def last_holder(self) -> int | None:
        """Return the last version that held the stage; None if there was none."""
        event = self.log.entry(self.head)
        while event.version is None and event.sequence:
            event = self.log.entry(self.log.previous(event))
        return event.version

    def check_expected(self, expected: int | None) -> None:
        """Raise `StageMoved` unless the stage holds the expected version; None accepts any."""
        if expected is not None and self.held != expected:
            raise StageMoved(
                f"stage {self.stage} of {self.log.model} is at {version_text(self.held)}, not at version "
                f"{expected} as expected; nothing was moved"
            )

    def draft(
        self, action: str, version: VersionInfo | None, reason: str, verdict: Verdict, **options: Any
    ) -> Event:
        """Return an event on this stage that is not recorded yet; `version` None empties the stage."""
        check_length("reason", reason)
        check_length("actor", self.actor)
        number, digest = (version.version, version.digest) if version is not None else (None, None)
        gates = tuple(gate.as_dict() for gate in verdict.gates)
        options |= {"gates": gates, "digest": digest}
        return Event(action, self.stage, number, self.held, self.actor, reason, **options)

    def note(self, draft: Event, outcome: str) -> Event:
        """Record an event that moves nothing, outside the chain."""
        event = self.log.record(draft, self.head, offset=0)
        self.log.close(event, outcome)
        return self.log.get(event.run_id, self.stage)

    def move(self, draft: Event) -> Event:
        """Record an event, append it to the chain, and apply it.

        Raises
        ------
        StageMoved
            If the stage moved since it was read. The event is recorded as superseded.
        MoveRefused
            If a gated registry refused the move. The event is recorded as failed.
        PromotionError
            If the version was deleted, or its digest changed. The event is recorded as failed.
        """
        log = self.log
        event = log.record(draft, self.head)
        if self._holder() != self.held or not log.claim(event):
            log.close(event, SUPERSEDED)
        elif not log.get(event.run_id, self.stage).has_failed:  # a repair may have closed it
            try:
                apply(log, event)
            except RegistryToolsError:
                _log.warning("the event is recorded: the next command on %s applies it", self.stage)
                raise
        event = log.get(event.run_id, self.stage)
        if event.outcome == SUPERSEDED:
            raise StageMoved(
                f"stage {self.stage} of {log.model} moved from {version_text(self.held)} to "
                f"{version_text(self._holder())} in the meantime; nothing was moved; check the history "
                "and retry"
            )
        failure = event.failure or ""
        if event.outcome == FAILED and failure.startswith(MoveRefused.prefix):
            raise MoveRefused(failure.removeprefix(MoveRefused.prefix))
        if event.outcome == FAILED:
            raise PromotionError(f"this {event.action} failed, and nothing was moved: {failure}")
        return event

    def _holder(self) -> int | None:
        return stages.stage_holder(self.log.client, self.log.model, self.stage)


def read_stage(client: MlflowClient, name: str, stage: str) -> StageState:
    """Read a stage and write nothing; an open event stays open."""
    log = EventLog.find(client, name)
    return StageState(log, stage, current_user(), log.head(stage), stages.stage_holder(client, name, stage))


def open_stage(client: MlflowClient, name: str, stage: str, actor: str | None) -> StageState:
    """Prepare a stage for a move: apply an open event, and record a move by another tool.

    Raises
    ------
    AccessDenied
        If this user may not move stages. Nothing is recorded.
    """
    stages.check_write_access(client, name)
    return roll_forward(EventLog.find_or_make(client, name), stage, actor or current_user())


def apply(log: EventLog, event: Event) -> bool:
    """Set a stage to the version of an event in its chain, or of a newer event if there is one.

    The event fails if its version was deleted or has another digest now, or if a gated registry refuses
    the move. After any other error the event stays open, and the next command applies it.

    Returns
    -------
    bool
        False if a gated registry refused the last move, so that the stage may not hold the version of
        its newest event.
    """
    marks: list[str] = []
    has_moved = False
    while True:
        fault, is_refused = _fault(log, event), False
        if fault is None:
            marks.append(log.mark_applying(event))
            try:
                stages.move_alias(log.client, log.model, event.stage, event.version)
                has_moved = True
            except MoveRefused as error:
                fault, is_refused = f"{MoveRefused.prefix}{error}", True
        if event.outcome == OPEN:
            log.close(event, APPLIED if fault is None else FAILED, fault or "")
        newest = log.entry(log.head(event.stage))
        # An older event is applied again only if a late move of this client may have displaced it: in a
        # gated registry, that would undo a move by another tool.
        is_overtaken = has_moved or not is_refused or newest.outcome == OPEN
        if newest.run_id == event.run_id or not is_overtaken or _returns_by_role(log, newest):
            break
        event = newest
    log.set_head(event)
    for mark in marks:
        log.remove_mark(mark)
    stages.mirror_legacy_stages(log.client, log.model, event.previous_version)
    return not is_refused


def _fault(log: EventLog, event: Event) -> str | None:
    """Return why an event can never be applied; None if it can."""
    if event.version is None:
        return None
    version = registry.existing_version(log.client, log.model, event.version)
    if version is None:
        return f"version {event.version} was deleted"
    if event.digest is not None and version.digest != event.digest:
        return f"the digest of version {event.version} was changed after the event was recorded"
    if event.outcome == OPEN and version.tags.get(DELETING_TAG) == "true":
        return f"version {event.version} is being deleted; to finish, repeat registry-tools delete"
    return None


def _returns_by_role(log: EventLog, event: Event) -> bool:
    """Return whether a gated registry decides on an event by the role of the user who sets the alias."""
    version = registry.existing_version(log.client, log.model, event.version)
    return version is not None and held_tag(event.stage) in version.tags


def _complete(log: EventLog, event: Event, cancel: bool) -> None:
    """Complete an open event of another client, or cancel it if only that client may complete it."""
    if not _returns_by_role(log, event):
        apply(log, event)
    elif stages.stage_holder(log.client, log.model, event.stage) == event.version:
        log.close(event, APPLIED)
    elif cancel:
        log.close(event, FAILED, "cancelled by registry-tools repair")
    else:
        raise PromotionError(
            f"{event.title} by {event.actor} is in progress or was interrupted: repeat this in a minute, or "
            f"cancel it with: registry-tools repair {log.model}"
        )


def roll_forward(log: EventLog, stage: str, actor: str, *, cancel: bool = False) -> StageState:
    """Complete a claimed event that is still open, record a move by another tool, and return the stage.

    The last event of its chain is closed then, and the notes have a line for each change. `cancel` closes an
    open event as failed if only its own client may complete it.

    Raises
    ------
    PromotionError
        If there is such an event, and `cancel` is false.
    """
    notes: list[str] = []
    completed: Event | None = None
    can_restore = True
    while True:
        head = log.head(stage)
        entry = log.entry(head)
        if entry.outcome == OPEN:
            _complete(log, entry, cancel)
            completed = log.get(entry.run_id, stage)
            notes.append(f"{entry.title} was left open; now {completed.outcome}")
            continue
        before = log.progress(stage)
        held = stages.stage_holder(log.client, log.model, stage)
        if held == entry.version:
            return StageState(log, stage, actor, head, held, tuple(notes), completed)
        if before != log.progress(stage):
            continue  # another client applied an event in the meantime
        moved = f"{stage} was moved from {version_text(entry.version)} to {version_text(held)}"
        marked = [event.version for event in log.marked(before, stage).values() if event is not None]
        can_restore = can_restore and not _returns_by_role(log, entry)
        if can_restore and held in marked and _fault(log, entry) is None:
            if log.head(stage).run_id != head.run_id:
                continue  # another client is at work, and its write is not late
            can_restore = apply(log, entry)
            if can_restore:
                notes.append(f"{moved} by a delayed client; restored")
            continue
        event = log.record(_external(log, stage, held, entry, actor), head)
        if log.close(event, APPLIED if log.claim(event) else SUPERSEDED) == APPLIED:
            log.set_head(event)
            notes.append(f"{moved} externally; recorded")


def _external(log: EventLog, stage: str, held: int | None, entry: Event, actor: str) -> Event:
    """Return the event for a move by another tool, as the gated registry or else this client knows it."""
    record = last_move(log.client, log.model, stage, held or entry.version)
    if record is None:
        reason = "moved by another tool, recorded afterwards"
        return Event(EXTERNAL, stage, held, entry.version, actor, reason, external=True)
    action = UNSET if held is None else ROLLBACK if record.action == "rollback" else PROMOTE
    return Event(
        action,
        stage,
        held,
        entry.version,
        record.by or "unknown",
        f"{record.reason[: _LONGEST_TEXT - 100] or 'no reason'}; by another tool at {record.at}",
        forced=record.action == "force",
        external=True,
        digest=record.digest if held is not None else None,
    )


def check_length(option: str, text: str) -> None:
    """Raise `PromotionError` if the text of an option is too long for an event."""
    if len(text) > _LONGEST_TEXT:
        raise PromotionError(
            f"--{option} has {len(text):,} characters: shorten it to at most {_LONGEST_TEXT:,}"
        )
