"""The page of `registry-tools history --html`: who held which stage when, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from registry_tools.promotion.events import DONE, ROLLBACK, Act
from registry_tools.reports.render import render

_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


def history_page(
    name: str,
    acts: Sequence[Act],
    stages: Mapping[str, int],
    irregularities: Sequence[str],
    made: datetime,
    scope: str = "",
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
    scope
        Which acts these are, if not all.
    """
    acts = _in_turns(acts)
    moved = sorted({act.stage for act in acts})
    lanes = {stage: _lane(stage, acts, made) for stage in moved}
    held = ", ".join(f"{stage} is version {number}" for stage, number in sorted(stages.items()))
    return render(
        "history.html",
        made,
        name=name,
        now=f"Now {held}." if held else "No stage is in use.",
        irregularities=irregularities,
        scope=scope,
        stages=moved,
        rows=[
            _row(act) | {"lanes": [lanes[stage][place] for stage in moved]}
            for place, act in enumerate(acts)
        ],
    )


def _in_turns(acts: Sequence[Act]) -> list[Act]:
    """Return the acts with those on each stage in the order of their turns.

    Times are those of the machines that acted, and their clocks may differ.
    """
    ordered = list(acts)
    for stage in {act.stage for act in acts}:
        places = [
            place
            for place, act in enumerate(acts)
            if act.stage == stage and act.outcome == DONE and act.turn is not None
        ]
        by_turn = sorted((acts[place] for place in places), key=lambda act: -(act.turn or 0))
        for place, act in zip(places, by_turn, strict=True):
            ordered[place] = act
    return ordered


def _lane(stage: str, acts: Sequence[Act], made: datetime) -> list[dict[str, Any]]:
    """Return what a stage held after each act, in the order of the acts."""
    moves = [act for act in reversed(acts) if act.stage == stage and act.outcome == DONE]
    until = dict(zip([act.run_id for act in moves], [*moves[1:], None], strict=True))
    # What it held before the first act that is shown; it changed its colour at each act.
    version = moves[0].previous_version if moves else None
    cells: list[dict[str, Any]] = []
    number = 0
    for act in reversed(acts):
        begins = ""
        if act.run_id in until:
            version, number = act.version, number + 1
            following = until[act.run_id]
            end = _time(following) if following is not None else made
            begins = _lasting((end - _time(act)).total_seconds())
            begins += " now" if following is None and begins.startswith("for") else ""
        cells.append({"version": version, "odd": number % 2 == 1, "begins": begins})
    return cells[::-1]


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
    """Return how long a version held its stage, in the two largest units."""
    if seconds < 0:
        return "the clocks differ"
    left = int(seconds)
    said: list[str] = []
    for unit, size in _UNITS:
        if left >= size and len(said) < 2:
            said.append(f"{left // size} {unit}")
        left %= size
    return "for " + (" ".join(said) or "0 s")
