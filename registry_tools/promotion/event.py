"""The event: one recorded move of a stage, with its outcome, as an MLflow run."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Final

from mlflow.entities import Run

from registry_tools.errors import RegistryToolsError
from registry_tools.mlflow_store.client import iso_time

# Actions. `register`: a training moved its stage to the new version. `external`: another tool moved the
# stage. `begin`: the start of each chain, where the stage holds no version. `request`, `approve` and
# `reject` move nothing.
PROMOTE, ROLLBACK, UNSET, REGISTER = "promote", "rollback", "unset", "register"
EXTERNAL, BEGIN = "external", "begin"
REQUEST: Final = "request"
APPROVE: Final = "approve"
REJECT: Final = "reject"
# Outcomes of events in the chain of their stage, and then of events outside the chain.
OPEN, APPLIED, FAILED = "open", "applied", "failed"
REFUSED, SUPERSEDED, RECORDED = "refused", "superseded", "recorded"

# The value of the tag `kind` that marks runs as events.
EVENT_KIND = "event"
# The run of an event has the fields of these names as tags. Its `outcome` is a parameter, because MLflow
# accepts one value for a parameter.
_SHOWN = ("action", "stage", "version", "actor", "reason", "previous_event")
_NOT_CONTENT = {"run_id", "outcome", "failure", "at", "is_running"}
_CONTENT = "content"  # the tag with the content as JSON
_LONGEST_TAG = 8_000  # characters


@dataclass(frozen=True)
class Event:
    """One recorded move of a stage, one refused promotion, or one request, approval or rejection.

    The fields before `run_id` are the content, which never changes.
    """

    action: str
    stage: str
    version: int | None  # None: the stage was emptied
    previous_version: int | None
    actor: str
    reason: str = ""
    forced: bool = False
    external: bool = False  # another tool moved the stage, and a client recorded it afterwards
    gates: tuple[dict[str, Any], ...] = ()
    digest: str | None = None  # the digest of the version when the event was recorded
    rollback_target: str | None = None  # the run of the event that a rollback restored
    sequence: int = 0  # the sequence number in the chain of the stage, from 1
    previous_event: str = ""  # the run of the previous event in the chain
    # The event log adds the following fields, which are not content.
    run_id: str = ""
    outcome: str = OPEN
    failure: str | None = None  # the reason of the outcome `failed`
    at: str = ""  # the time when it was closed or, while it is open, started; ISO 8601, UTC
    is_running: bool = True  # whether its run is in progress in MLflow

    @property
    def has_failed(self) -> bool:
        """Whether the event has no effect; it may still be in the chain of its stage."""
        return self.outcome in {FAILED, SUPERSEDED}

    @property
    def outcome_text(self) -> str:
        """The outcome, marked if the move was forced, or was made by another tool."""
        marks = [mark for mark in ("forced", "external") if getattr(self, mark) and mark != self.action]
        return ", ".join([self.outcome, *marks])

    @property
    def title(self) -> str:
        """The name of its run, such as `promote 2 → production`."""
        return f"{self.action} {self.version or 'none'} → {self.stage}"

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        return vars(self) | {"gates": list(self.gates)}

    def tags(self) -> dict[str, str]:
        """Return the tags of the run: the content as JSON, and some fields for MLflow's search and UI."""
        plain = {name: value for name, value in vars(self).items() if name not in _NOT_CONTENT}
        for longest in (500, 200, 50, 0):  # shorten the messages; verdict.json keeps them complete
            gates = [gate | {"message": gate["message"][:longest]} for gate in self.gates]
            if not longest:
                gates = [gate | {"metrics": {}} for gate in gates]
            content = json.dumps(plain | {"gates": gates}, ensure_ascii=False)
            if len(content) <= _LONGEST_TAG:
                break
        shown = {name: str(getattr(self, name) or "") for name in _SHOWN}
        log = {"kind": EVENT_KIND, "mlflow.runName": self.title, "mlflow.user": self.actor}
        return shown | log | {_CONTENT: content}


def link_to(run: Run) -> str:
    """Return the text that links to the event of a run: the id of the run and the SHA-256 of the content."""
    content = run.data.tags.get(_CONTENT, "")
    return f"{run.info.run_id}:{hashlib.sha256(content.encode()).hexdigest()}"


def _is_external(content: dict[str, Any]) -> bool:
    return content["action"] == EXTERNAL or bool(content.get("external"))


def event_from_run(run: Run) -> Event:
    """Read an event from its run.

    Raises
    ------
    RegistryToolsError
        If the tags of the run are not those of an event.
    """
    try:
        content = json.loads(run.data.tags[_CONTENT])
        return Event(
            **content | {"gates": tuple(content["gates"])},
            run_id=run.info.run_id,
            # Without an outcome, an external event is applied: it records a move that already happened.
            outcome=run.data.params.get("outcome", APPLIED if _is_external(content) else OPEN),
            failure=run.data.tags.get("failure"),
            at=iso_time(run.info.end_time or run.info.start_time),
            is_running=run.info.status == "RUNNING",
        )
    except (KeyError, ValueError, TypeError) as error:
        raise RegistryToolsError(
            f"run {run.info.run_id} in the history is not an event of registry-tools "
            f"({type(error).__name__}: {error}): delete it in MLflow"
        ) from error
