"""The record of acts: each promotion and rollback is an MLflow run in `<model>-promotions`.

An act names the one that lies under it: the one that a rollback goes back to.
"""

from __future__ import annotations

import getpass
import json
import os
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Run, RunStatus, RunTag

from registry_tools.errors import RegistryToolsError
from registry_tools.mlflow_store import experiments
from registry_tools.mlflow_store.client import translate_errors, upsert

if TYPE_CHECKING:
    from registry_tools.evaluation.verdict import Verdict

PROMOTE, ROLLBACK = "promote", "rollback"
DONE, REFUSED, SUPERSEDED, UNFINISHED = "done", "refused", "superseded", "unfinished"

# The metric that numbers the acts on one stage in the order in which they had their turn.
SEQUENCE = "turn"
_ROOT = "root"
_EVENT = "act"
# Whoever may log a run may log one there.
_IS_EVENT = f"tags.kind = '{_EVENT}'"
_MOVING = "moving"
_NAME = "mlflow.runName"
# Tags of the experiment: the acts on a stage that moved it last, and that claimed a place last.
_DONE = "done"
_PAGE = 50
_UI = experiments.TRAINING | experiments.view(
    "acts", "attributes.start_time", ["tags.`outcome`", "tags.`reason`", "tags.`actor`"]
)


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
    external: bool  # moved by other means, and recorded afterwards
    at: str  # when it was closed, else begun; ISO 8601, UTC
    gates: tuple[dict[str, Any], ...]
    under: str | None  # the act that a rollback from here goes back to
    begun: int  # milliseconds since 1970
    sequence: float | None  # its place among the acts that moved, or were about to move, this stage
    is_moving: bool  # it had its turn, and was about to move the stage
    is_open: bool  # under way, or left so by a crash

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        hidden = {"begun", "under", "turn", "is_moving", "is_open"}
        values = {name: value for name, value in vars(self).items() if name not in hidden}
        return values | {"gates": list(self.gates)}


def experiment_name(model: str) -> str:
    """Return the name of the experiment that holds a model's acts."""
    return f"{model}-promotions"


def begin_event(
    client: MlflowClient,
    model: str,
    *,
    action: str,
    stage: str,
    version: int | None,
    previous_version: int | None,
    actor: str,
    reason: str,
    forced: bool = False,
    external: bool = False,
    start_time: int | None = None,
) -> Event:
    """Record that an act has begun; until it is closed its outcome is `unfinished`."""
    with translate_errors(client.tracking_uri):
        tags = {
            _NAME: _run_name(action, version, stage),
            "mlflow.user": actor,
            "kind": _EVENT,
            "action": action,
            "outcome": UNFINISHED,
            "stage": stage,
            "version": str(version or ""),
            "previous_version": str(previous_version or ""),
            "actor": actor,
            "reason": reason,
            "forced": _text(forced),
            "external": _text(external),
        }
        run = client.create_run(_experiment(client, model), start_time, tags)
        return event_from_run(run)


def record_external_event(
    client: MlflowClient, model: str, held: int | None, last: Event | None, event: Event
) -> Event:
    """Record, in the turn of an act, that others moved its stage before it."""
    external = begin_external_event(
        client, model, event.stage, held, last, event.actor, start_time=event.begun - 1
    )
    if event.sequence is not None:
        with translate_errors(client.tracking_uri):
            client.log_metric(external.run_id, SEQUENCE, event.sequence - 0.5)
    return close(client, external, DONE, under=last.run_id if last else None)


def begin_external_event(
    client: MlflowClient,
    model: str,
    stage: str,
    held: int | None,
    last: Event | None,
    actor: str,
    start_time: int | None = None,
) -> Event:
    """Begin to record a move by other means than these acts."""
    return begin_event(
        client,
        model,
        action=PROMOTE,
        stage=stage,
        version=held,
        previous_version=last.version if last else None,
        actor=actor,
        reason="moved by other means, recorded afterwards",
        forced=True,
        external=True,
        start_time=start_time,
    )


def record_verdict(client: MlflowClient, event: Event, verdict: Verdict) -> None:
    """Log the gates of an act: the figures as metrics, all of it as `verdict.json`."""
    now = _now()
    with translate_errors(client.tracking_uri):
        client.log_dict(event.run_id, verdict.as_dict(), "verdict.json")
        metrics = [
            Metric(f"{gate.gate}.{name}", value, now, 0)
            for gate in verdict.gates
            for name, value in gate.metrics.items()
        ]
        # A tag holds 8,000 characters; verdict.json has each message whole.
        gates = [
            {"gate": gate.gate, "passed": gate.passed, "message": gate.message[:500]}
            for gate in verdict.gates
        ]
        tag = RunTag("gates", json.dumps(gates, ensure_ascii=False))
        client.log_batch(event.run_id, metrics=metrics, tags=[tag])


def mark_moving(client: MlflowClient, event: Event) -> None:
    """Record that an act moves the stage now: if its process ends here, the stage tells which."""
    with translate_errors(client.tracking_uri):
        client.set_tag(event.run_id, _MOVING, "true")


def close(client: MlflowClient, event: Event, outcome: str, *, under: str | None = None) -> Event:
    """Record how an act ended."""
    with translate_errors(client.tracking_uri):
        tags = [RunTag("outcome", outcome)]
        if outcome != DONE:  # to be seen in a list of runs, all of which ended well
            name = f"{_run_name(event.action, event.version, event.stage)}, {outcome}"
            tags.append(RunTag(_NAME, name))
        if under is not None:
            tags.append(RunTag("under", under))
        client.log_batch(event.run_id, tags=tags)
        if outcome == DONE:
            _point_to_done(client, event)
        status = RunStatus.KILLED if outcome == UNFINISHED else RunStatus.FINISHED
        client.set_terminated(event.run_id, RunStatus.to_string(status))
        return event_from_run(client.get_run(event.run_id))


def _run_name(action: str, version: int | None, stage: str) -> str:
    return f"{action} {version or 'none'} → {stage}"


def last_done(client: MlflowClient, model: str, stage: str) -> Event | None:
    """Return the act that moved a stage last, None if none ever did."""
    run_id = _pointers(client, model).get(f"{_DONE}.{stage}")
    return get_event(client, run_id) if run_id else None


def last_claim(client: MlflowClient, model: str, stage: str) -> str | None:
    """Return the run of an act near the end of a stage's chain; None if it has none."""
    return _pointers(client, model).get(f"{SEQUENCE}.{stage}")


def point_to_claim(client: MlflowClient, event: Event) -> None:
    """Say that an act stands at the end of its stage's chain."""
    _point(client, event, SEQUENCE)


def _point_to_done(client: MlflowClient, event: Event) -> None:
    """Say that an act moved its stage last, unless a later one did while it was being finished."""
    run = client.get_run(event.run_id)
    known = client.get_experiment(run.info.experiment_id).tags.get(f"{_DONE}.{event.stage}")
    last = event_from_run(client.get_run(known)) if known else None
    if last is None or (event_from_run(run).sequence or 0) >= (last.sequence or 0):
        _point(client, event, _DONE)


def _pointers(client: MlflowClient, model: str) -> dict[str, str]:
    """Return the tags of the experiment: where to look without a search through all acts."""
    with translate_errors(client.tracking_uri):
        found = client.get_experiment_by_name(experiment_name(model))
    return dict(found.tags) if found is not None else {}


def _point(client: MlflowClient, event: Event, what: str) -> None:
    with translate_errors(client.tracking_uri):
        experiment = client.get_run(event.run_id).info.experiment_id
        upsert(lambda: client.set_experiment_tag(experiment, f"{what}.{event.stage}", event.run_id))


def last_event(client: MlflowClient, model: str, version: int) -> Event | None:
    """Return the newest act on a version, whatever came of it; None if there is none."""
    found = find_runs(client, model, f"{_IS_EVENT} and tags.version = '{version}'", limit=1)
    return event_from_run(found[0]) if found else None


def last_events(client: MlflowClient, model: str, versions: Collection[int]) -> dict[int, Event]:
    """Return the newest act on each of some versions of a model."""
    newest = list_events(client, model, limit=_PAGE)
    found = {event.version: event for event in reversed(newest) if event.version in versions}
    if len(newest) == _PAGE:
        for version in set(versions) - set(found):
            event = last_event(client, model, version)
            if event is not None:
                found[version] = event
    return {version: event for version, event in found.items() if version is not None}


def get_event(client: MlflowClient, run_id: str) -> Event:
    """Return an act by the id of its run."""
    with translate_errors(client.tracking_uri):
        return event_from_run(client.get_run(run_id))


def holders_before(
    client: MlflowClient, name: str, stage: str, held: int | None
) -> Iterator[Event]:
    """Yield the acts that a rollback would go back to, the nearest first."""
    event = last_done(client, name, stage)
    if event is not None and event.version == held:
        event = get_event(client, event.under) if event.under else None
    while event is not None:
        yield event
        event = get_event(client, event.under) if event.under else None


def list_events(
    client: MlflowClient, model: str, *, stage: str | None = None, limit: int | None = None
) -> list[Event]:
    """Return the acts of a model, newest first."""
    condition = _IS_EVENT + (f" and tags.stage = '{stage}'" if stage else "")
    return [event_from_run(run) for run in find_runs(client, model, condition, limit=limit)]


def open_events(client: MlflowClient, model: str) -> list[Event]:
    """Return the acts that are under way or were left open by a crash, oldest first."""
    condition = f"{_IS_EVENT} and attributes.status = 'RUNNING'"
    return [event_from_run(run) for run in reversed(find_runs(client, model, condition))]


def stages_moved(client: MlflowClient, model: str) -> list[str]:
    """Return the stages that any act was about to move, sorted."""
    prefix = f"{SEQUENCE}."
    return sorted(
        key.removeprefix(prefix) for key in _pointers(client, model) if key.startswith(prefix)
    )


def first_claim(stage: str) -> str:
    """Return the parameter of the root run that the first act on a stage claims."""
    return f"next.{stage}"


def find_runs(
    client: MlflowClient, model: str, condition: str, *, limit: int | None = None
) -> list[Run]:
    """Return runs of a model's history, newest first."""
    with translate_errors(client.tracking_uri):
        experiment = client.get_experiment_by_name(experiment_name(model))
        if experiment is None:
            return []
        return experiments.find_runs(client, experiment.experiment_id, condition, limit)


def _experiment(client: MlflowClient, model: str) -> str:
    """Return the id of the experiment; who makes it also makes the root of its chains."""
    found, made = experiments.find_or_make(client, experiment_name(model), _UI)
    if made:
        _make_root(client, found.experiment_id)
    if found.lifecycle_stage != "active":
        raise _deleted(model)
    return found.experiment_id


def _make_root(client: MlflowClient, experiment_id: str) -> Run:
    run = client.create_run(experiment_id, tags={"mlflow.runName": "history begins", "kind": _ROOT})
    client.set_terminated(run.info.run_id)
    upsert(lambda: client.set_experiment_tag(experiment_id, _ROOT, run.info.run_id))
    return run


def root(client: MlflowClient, model: str) -> Run:
    """Return the run before the first act. Its maker was killed if it does not come to be."""
    experiment_id = _experiment(client, model)
    deadline = time.monotonic() + 5
    known = _pointers(client, model).get(_ROOT)
    if known is not None:
        return client.get_run(known)
    while True:
        found = client.search_runs(
            [experiment_id],
            f"tags.kind = '{_ROOT}'",
            max_results=1,
            order_by=["attributes.start_time ASC", "attributes.run_id ASC"],
        )
        if found:
            return found[0]
        if time.monotonic() > deadline:
            _make_root(client, experiment_id)
            deadline += 5
        time.sleep(0.05)


def event_from_run(run: Run) -> Event:
    """Read an act from its run.

    Raises
    ------
    RegistryToolsError
        If its tags are not those of an act.
    """
    try:
        return _read(run)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise RegistryToolsError(
            f"run {run.info.run_id} in the history is no act that was recorded here "
            f"({type(error).__name__}: {error}): delete it in MLflow"
        ) from error


def check_not_deleted(client: MlflowClient, model: str) -> None:
    """Say so if the history of a model was deleted.

    Raises
    ------
    RegistryToolsError
        If it was.
    """
    with translate_errors(client.tracking_uri):
        found = client.get_experiment_by_name(experiment_name(model))
    if found is not None and found.lifecycle_stage != "active":
        raise _deleted(model)


def _deleted(model: str) -> RegistryToolsError:
    name = experiment_name(model)
    return RegistryToolsError(
        f"the history of {model} was deleted in MLflow: restore the experiment {name!r}"
    )


def _read(run: Run) -> Event:
    tags = run.data.tags
    figures: dict[str, dict[str, float]] = {}
    for name, value in run.data.metrics.items():
        gate, _, figure = name.partition(".")  # `sequence` belongs to none
        figures.setdefault(gate, {})[figure] = value
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
            gate | {"metrics": figures.get(gate["gate"], {})}
            for gate in json.loads(tags.get("gates", "[]"))
        ),
        under=tags.get("under") or None,
        begun=run.info.start_time,
        sequence=run.data.metrics.get(SEQUENCE),
        is_moving=_MOVING in tags,
        is_open=run.info.status == "RUNNING",
    )


def _now() -> int:
    return time.time_ns() // 1_000_000


def _text(flag: bool) -> str:
    return "true" if flag else "false"


def current_user() -> str:
    """Return who signs in to the registry, else the login name, for the record."""
    signed_in = os.environ.get("MLFLOW_TRACKING_USERNAME")
    if signed_in:
        return signed_in
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
