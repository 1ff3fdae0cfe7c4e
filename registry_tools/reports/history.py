"""Build the page of `registry-tools history --html`: a timeline of a model's stages and events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from registry_tools.promotion.event import (
    APPLIED,
    APPROVE,
    EXTERNAL,
    RECORDED,
    REGISTER,
    REJECT,
    REQUEST,
    ROLLBACK,
    UNSET,
    Event,
)
from registry_tools.promotion.history import forced_moves
from registry_tools.reports.render import render

_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


def history_page(
    name: str,
    entries: Sequence[Event],
    stages: Mapping[str, int],
    inconsistencies: Sequence[str],
    made: datetime,
    scope: str = "",
) -> str:
    """Return the timeline of a model's stages as an HTML page.

    Parameters
    ----------
    name
        The name of the registered model.
    entries
        The events, newest first.
    stages
        The present version in each stage.
    inconsistencies
        Lines about stages that do not hold the version of their last event.
    made
        The current time, in UTC.
    scope
        A description of the selection, if the entries are not all events.
    """
    entries = _in_sequence(entries)
    moved = sorted({event.stage for event in entries})
    lanes = {stage: _lane(stage, entries, made) for stage in moved}
    held = ", ".join(f"{stage} is version {number}" for stage, number in sorted(stages.items()))
    return render(
        "history.html",
        made,
        name=name,
        now=f"Now {held}." if held else "No stage is in use.",
        inconsistencies=inconsistencies,
        forced=forced_moves(entries),
        scope=scope,
        stages=moved,
        rows=[
            _row(event) | {"lanes": [lanes[stage][place] for stage in moved]}
            for place, event in enumerate(entries)
        ],
    )


def _in_sequence(entries: Sequence[Event]) -> list[Event]:
    """Return the entries with the events of each stage in the order of their sequence numbers.

    Their times come from the clocks of the clients' machines, which may differ.
    """
    ordered = list(entries)
    for stage in {event.stage for event in entries}:
        places = [
            place for place, event in enumerate(entries) if event.stage == stage and event.outcome == APPLIED
        ]
        by_sequence = sorted((entries[place] for place in places), key=lambda event: -event.sequence)
        for place, event in zip(places, by_sequence, strict=True):
            ordered[place] = event
    return ordered


def _lane(stage: str, entries: Sequence[Event], made: datetime) -> list[dict[str, Any]]:
    """Return the version that a stage held after each event, in the order of the entries."""
    moves = [event for event in reversed(entries) if event.stage == stage and event.outcome == APPLIED]
    until = dict(zip([event.run_id for event in moves], [*moves[1:], None], strict=True))
    # Begin with the version before the first event of the page. The colour changes at each event.
    version = moves[0].previous_version if moves else None
    cells: list[dict[str, Any]] = []
    number = 0
    for event in reversed(entries):
        begins = ""
        if event.run_id in until:
            version, number = event.version, number + 1
            following = until[event.run_id]
            end = _time(following) if following is not None else made
            begins = _duration_text((end - _time(event)).total_seconds())
            begins += " now" if following is None and begins.startswith("for") else ""
        cells.append({"version": version, "odd": number % 2 == 1, "begins": begins})
    return cells[::-1]


def _row(event: Event) -> dict[str, Any]:
    version = f"version {event.version}" if event.version else "nothing"
    what = {
        ROLLBACK: f"rollback of {event.stage} to {version}",
        UNSET: f"unset {event.stage}",
        REGISTER: f"register {version} in {event.stage}",
        EXTERNAL: f"external move of {event.stage} to {version}",
        REQUEST: f"request {version} for {event.stage}",
        APPROVE: f"approve {version} for {event.stage}",
        REJECT: f"reject {version} for {event.stage}",
    }.get(event.action, f"promote {version} to {event.stage}")
    passed = {gate["gate"]: gate["message"] for gate in event.gates if gate["passed"]}
    beside = passed.pop("champion", "")  # the message shows why a lower accuracy was accepted
    return {
        "at": event.at,
        "when": f"{_time(event):%Y-%m-%d %H:%M:%S}",
        "what": what,
        "outcome": event.outcome_text,
        "tone": _tone(event),
        "actor": event.actor,
        "reason": event.reason,
        "refused": [gate for gate in event.gates if not gate["passed"]],
        "beside": beside,
        "passed": ", ".join(passed),
    }


def _tone(event: Event) -> str:
    if event.outcome == RECORDED:
        return "bad" if event.action == REJECT else "good"
    return "good" if event.outcome == APPLIED and not event.forced else "bad"


def _time(event: Event) -> datetime:
    return datetime.fromisoformat(event.at)


def _duration_text(seconds: float) -> str:
    """Return the time that a version held its stage as text, in the two largest units."""
    if seconds < 0:
        return "the clocks differ"
    left = int(seconds)
    parts: list[str] = []
    for unit, size in _UNITS:
        if left >= size and len(parts) < 2:
            parts.append(f"{left // size} {unit}")
        left %= size
    return "for " + (" ".join(parts) or "0 s")
