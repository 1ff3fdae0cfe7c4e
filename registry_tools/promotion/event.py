"""One event of a stage: its content, which never changes, and its outcome."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from mlflow.entities import Run

from registry_tools.errors import RegistryToolsError
from registry_tools.mlflow_store.client import iso_time

# Actions. A training registers a version in its stage; another tool moves a stage externally. Each
# chain begins with a stage that holds no version.
PROMOTE, ROLLBACK, UNSET, REGISTER = "promote", "rollback", "unset", "register"
EXTERNAL, BEGIN = "external", "begin"
# Outcomes of an event in the chain of its stage, and of an event that has no place in it.
OPEN, APPLIED, FAILED = "open", "applied", "failed"
REFUSED, SUPERSEDED = "refused", "superseded"

# The tag `kind` of the runs that are events.
EVENT_KIND = "event"
# The parameter with the outcome: MLflow takes a parameter once.
OUTCOME = "outcome"
FAILURE = "failure"
_CONTENT = "content"
_LONGEST_TAG = 8_000  # characters
PREVIOUS = "previous_event"
_SHOWN = ("action", "stage", "version", "actor", "reason", PREVIOUS)


@dataclass(frozen=True)
class Event:
    """One recorded move of a stage, or one refused promotion."""

    action: str
    stage: str
    version: int | None  # None: the stage was emptied
    previous_version: int | None
    actor: str
    reason: str = ""
    forced: bool = False
    gates: tuple[dict[str, Any], ...] = ()
    digest: str | None = None  # of the version's model files, when the event was recorded
    rollback_target: str | None = None  # the event that a rollback went back to
    sequence: int = 0  # consecutive along the chain of the stage, from 1
    previous_event: str = ""  # the run of the event before it in that chain
    # The rest is not content: the log adds it.
    run_id: str = ""
    outcome: str = OPEN
    failure: str | None = None  # why it failed
    at: str = ""  # when it was closed, else begun; ISO 8601, UTC
    is_running: bool = True  # MLflow shows its run as in progress

    @property
    def has_failed(self) -> bool:
        """Whether the event has no effect, although it may stand in the chain of its stage."""
        return self.outcome in {FAILED, SUPERSEDED}

    @property
    def title(self) -> str:
        """The name of its run, such as `promote 2 → production`."""
        return f"{self.action} {self.version or 'none'} → {self.stage}"

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        return vars(self) | {"gates": list(self.gates)}

    def tags(self) -> dict[str, str]:
        """Return the tags of its run: the content, and a few values for MLflow's search and UI."""
        names = list(vars(self))[: list(vars(self)).index("run_id")]
        plain = {name: getattr(self, name) for name in names}
        for longest in (500, 200, 50, 0):  # the file verdict.json has all of it
            gates = [gate | {"message": gate["message"][:longest]} for gate in self.gates]
            if not longest:
                gates = [gate | {"metrics": {}} for gate in gates]
            content = json.dumps(plain | {"gates": gates}, ensure_ascii=False)
            if len(content) <= _LONGEST_TAG:
                break
        shown = {name: str(getattr(self, name) or "") for name in _SHOWN}
        log = {"kind": EVENT_KIND, "mlflow.runName": self.title, "mlflow.user": self.actor}
        return shown | log | {_CONTENT: content}


def content_digest(run: Run) -> str:
    """Return the SHA-256 of the content of the event in a run."""
    return hashlib.sha256(run.data.tags.get(_CONTENT, "").encode()).hexdigest()


def event_from_run(run: Run) -> Event:
    """Read an event from its run.

    Raises
    ------
    RegistryToolsError
        If its tags are not those of an event.
    """
    try:
        content = json.loads(run.data.tags[_CONTENT])
        return Event(
            **content | {"gates": tuple(content["gates"])},
            run_id=run.info.run_id,
            # The stage had moved already when an external event was recorded.
            outcome=run.data.params.get(OUTCOME, APPLIED if content["action"] == EXTERNAL else OPEN),
            failure=run.data.tags.get(FAILURE),
            at=iso_time(run.info.end_time or run.info.start_time),
            is_running=run.info.status == "RUNNING",
        )
    except (KeyError, ValueError, TypeError) as error:
        raise RegistryToolsError(
            f"run {run.info.run_id} in the history is no event that registry-tools recorded "
            f"({type(error).__name__}: {error}): delete it in MLflow"
        ) from error
