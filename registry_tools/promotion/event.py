"""One recorded promotion or rollback: an MLflow run whose tags hold its values."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from mlflow.entities import Run

from registry_tools.errors import RegistryToolsError

PROMOTE, ROLLBACK = "promote", "rollback"
DONE, REFUSED, SUPERSEDED, UNFINISHED = "done", "refused", "superseded", "unfinished"

# The tag `kind` of the runs that are events.
EVENT_KIND = "event"
# The metric that numbers the events on one stage in the order in which they held its lock.
SEQUENCE = "sequence"
APPLYING = "applying"
ROLLBACK_TARGET = "rollback_target"
_NOT_IN_JSON = {"begun", "rollback_target", "sequence", "is_applying", "is_open"}


@dataclass(frozen=True)
class Event:
    """One promotion or rollback, as it is recorded."""

    run_id: str
    action: str
    outcome: str
    version: int | None  # None: others emptied the stage
    stage: str
    previous_version: int | None
    actor: str
    reason: str
    forced: bool
    external: bool  # made outside registry-tools, and recorded afterwards
    at: str  # when it was closed, else begun; ISO 8601, UTC
    gates: tuple[dict[str, Any], ...]
    rollback_target: str | None  # the event that a rollback from here goes back to
    begun: int  # milliseconds since 1970
    sequence: float | None  # its place among the events that changed, or could change, this stage
    is_applying: bool  # it held the lock, and was about to move the stage
    is_open: bool  # in progress, or left so by a crash

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        values = {name: value for name, value in vars(self).items() if name not in _NOT_IN_JSON}
        return values | {"gates": list(self.gates)}


def event_title(action: str, version: int | None, stage: str) -> str:
    """Return the name of an event's run, such as `promote 2 → production`."""
    return f"{action} {version or 'none'} → {stage}"


def event_from_run(run: Run) -> Event:
    """Read an event from its run.

    Raises
    ------
    RegistryToolsError
        If its tags are not those of an event.
    """
    try:
        return _read_event(run)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise RegistryToolsError(
            f"run {run.info.run_id} in the history is no event that registry-tools recorded "
            f"({type(error).__name__}: {error}): delete it in MLflow"
        ) from error


def _read_event(run: Run) -> Event:
    tags = run.data.tags
    metrics: dict[str, dict[str, float]] = {}
    for key, value in run.data.metrics.items():
        gate, _, name = key.partition(".")  # `sequence` belongs to none
        metrics.setdefault(gate, {})[name] = value
    at = (run.info.end_time or run.info.start_time) / 1000
    return Event(
        run_id=run.info.run_id,
        action=tags["action"],
        outcome=tags["outcome"],
        version=int(tags["version"]) if tags["version"] else None,
        stage=tags["stage"],
        previous_version=int(tags["previous_version"]) if tags["previous_version"] else None,
        actor=tags["actor"],
        reason=tags["reason"],
        forced=tags["forced"] == "true",
        external=tags.get("external") == "true",
        at=datetime.fromtimestamp(at, timezone.utc).isoformat(timespec="milliseconds"),
        gates=tuple(
            gate | {"metrics": metrics.get(gate["gate"], {})} for gate in json.loads(tags.get("gates", "[]"))
        ),
        rollback_target=tags.get(ROLLBACK_TARGET) or None,
        begun=run.info.start_time,
        sequence=run.data.metrics.get(SEQUENCE),
        is_applying=APPLYING in tags,
        is_open=run.info.status == "RUNNING",
    )
