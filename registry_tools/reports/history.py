"""The page of `registry-tools history --html`: who held which stage when, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from registry_tools.history import DONE, ROLLBACK, Act
from registry_tools.reports.render import render

_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


def history_page(
    name: str,
    acts: Sequence[Act],
    stages: Mapping[str, int],
    irregularities: Sequence[str],
    made: datetime,
) -> str:
    """Return the timeline of a model's stages as HTML.

    Parameters
    ----------
    name
        Of the registered model.
    acts
        Newest first.
    stages
        The version in each stage now.
    irregularities
        What the acts do not explain.
    made
        Now, in UTC.
    """
    moved = sorted({act.stage for act in acts})
    lanes = {stage: _lane(stage, acts, made) for stage in moved}
    held = ", ".join(f"{stage} is version {number}" for stage, number in sorted(stages.items()))
    return render(
        "history.html",
        made,
        name=name,
        now=f"Now {held}." if held else "No stage is in use.",
        irregularities=irregularities,
        stages=moved,
        rows=[
            _row(act) | {"lanes": [lanes[stage][place] for stage in moved]}
            for place, act in enumerate(acts)
        ],
    )


def _lane(stage: str, acts: Sequence[Act], made: datetime) -> list[dict[str, Any]]:
    """Return what a stage held after each act, in the order of the acts."""
    version, began, number = None, None, 0
    cells: list[dict[str, Any]] = []
    until = _next_moves(stage, acts)
    for act in reversed(acts):
        cell: dict[str, Any] = {"begins": ""}
        if act.stage == stage and act.outcome == DONE:
            version, began, number = act.version, _time(act), number + 1
            end = until[act.run_id]
            lasted = _lasting(((end or made) - began).total_seconds())
            cell["begins"] = f"for {lasted}" if end else f"for {lasted} now"
        cells.append(cell | {"version": version, "odd": number % 2 == 1})
    return cells[::-1]


def _next_moves(stage: str, acts: Sequence[Act]) -> dict[str, datetime | None]:
    """Return when the version that each act brought was replaced, by the act's run."""
    found: dict[str, datetime | None] = {}
    later = None
    for act in acts:
        if act.stage == stage and act.outcome == DONE:
            found[act.run_id] = later
            later = _time(act)
    return found


def _row(act: Act) -> dict[str, Any]:
    version = f"version {act.version}" if act.version else "nothing"
    what = f"promote {version} to {act.stage}"
    if act.action == ROLLBACK:
        what = f"rollback of {act.stage} to {version}"
    outcome = act.outcome + (", forced" if act.forced and not act.external else "")
    passed = {gate["gate"]: gate["message"] for gate in act.gates if gate["passed"]}
    beside = passed.pop("champion", "")  # why a lower figure was good enough
    return {
        "at": act.at,
        "when": f"{_time(act):%Y-%m-%d %H:%M:%S}",
        "what": what,
        "outcome": outcome + (", by other means" if act.external else ""),
        "tone": "good" if act.outcome == DONE and not act.forced else "bad",
        "actor": act.actor,
        "reason": act.reason,
        "refused": [gate for gate in act.gates if not gate["passed"]],
        "beside": beside,
        "passed": ", ".join(passed),
    }


def _time(act: Act) -> datetime:
    return datetime.fromisoformat(act.at)


def _lasting(seconds: float) -> str:
    """Return a time in its two largest units."""
    left = max(0, int(seconds))
    said: list[str] = []
    for unit, size in _UNITS:
        if left >= size and len(said) < 2:
            said.append(f"{left // size} {unit}")
        left %= size
    return " ".join(said) or "0 s"
