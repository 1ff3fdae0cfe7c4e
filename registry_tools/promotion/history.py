"""The history of a model: its events, each an MLflow run in `<model>-promotions`.

An event names its rollback target: the event that a rollback from there goes back to.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator

from mlflow import MlflowClient
from mlflow.entities import Run

from registry_tools.errors import RegistryToolsError
from registry_tools.mlflow_store import experiments
from registry_tools.mlflow_store.client import translate_errors, upsert
from registry_tools.promotion.event import EVENT_KIND, Event, event_from_run

_ROOT = "root"
# Whoever may log a run may log one there.
_IS_EVENT = f"tags.kind = '{EVENT_KIND}'"
# Tags of the experiment, with the stage: the event that moved it last, and the newest in its chain.
_LAST_EVENT = "last_event"
_CHAIN_END = "chain_end"
_PAGE = 50
_UI = experiments.TRAINING | experiments.view(
    "events", "attributes.start_time", ["tags.`outcome`", "tags.`reason`", "tags.`actor`"]
)


def experiment_name(model: str) -> str:
    """Return the name of the experiment that holds a model's events."""
    return f"{model}-promotions"


def last_stage_event(client: MlflowClient, model: str, stage: str) -> Event | None:
    """Return the event that moved a stage last, None if none ever did."""
    run_id = _experiment_tags(client, model).get(f"{_LAST_EVENT}.{stage}")
    return get_event(client, run_id) if run_id else None


def chain_end(client: MlflowClient, model: str, stage: str) -> str | None:
    """Return the run of an event near the end of a stage's chain; None if it has none."""
    return _experiment_tags(client, model).get(f"{_CHAIN_END}.{stage}")


def set_chain_end(client: MlflowClient, event: Event) -> None:
    """Record that an event stands at the end of its stage's chain."""
    _tag_experiment(client, event, _CHAIN_END)


def set_last_event(client: MlflowClient, event: Event) -> None:
    """Record that an event moved its stage last, unless a later one did in the meantime."""
    run = client.get_run(event.run_id)
    tags = client.get_experiment(run.info.experiment_id).tags
    known = tags.get(f"{_LAST_EVENT}.{event.stage}")
    last = event_from_run(client.get_run(known)) if known else None
    if last is None or (event_from_run(run).sequence or 0) >= (last.sequence or 0):
        _tag_experiment(client, event, _LAST_EVENT)


def _experiment_tags(client: MlflowClient, model: str) -> dict[str, str]:
    """Return the tags of the experiment, which save a search through all events."""
    with translate_errors(client.tracking_uri):
        found = client.get_experiment_by_name(experiment_name(model))
    return dict(found.tags) if found is not None else {}


def _tag_experiment(client: MlflowClient, event: Event, key: str) -> None:
    with translate_errors(client.tracking_uri):
        experiment = client.get_run(event.run_id).info.experiment_id
        upsert(lambda: client.set_experiment_tag(experiment, f"{key}.{event.stage}", event.run_id))


def last_event(client: MlflowClient, model: str, version: int) -> Event | None:
    """Return the newest event on a version, whatever its outcome; None if there is none."""
    found = find_runs(client, model, f"{_IS_EVENT} and tags.version = '{version}'", limit=1)
    return event_from_run(found[0]) if found else None


def last_events(client: MlflowClient, model: str, versions: Collection[int]) -> dict[int, Event]:
    """Return the newest event on each of some versions of a model."""
    newest = list_events(client, model, limit=_PAGE)
    found = {event.version: event for event in reversed(newest) if event.version in versions}
    if len(newest) == _PAGE:
        for version in set(versions) - set(found):
            event = last_event(client, model, version)
            if event is not None:
                found[version] = event
    return {version: event for version, event in found.items() if version is not None}


def get_event(client: MlflowClient, run_id: str) -> Event:
    """Return an event by the id of its run."""
    with translate_errors(client.tracking_uri):
        return event_from_run(client.get_run(run_id))


def holders_before(client: MlflowClient, name: str, stage: str, held: int | None) -> Iterator[Event]:
    """Yield the events that a rollback would go back to, the nearest first."""
    event = last_stage_event(client, name, stage)
    if event is not None and event.version == held:
        event = get_event(client, event.rollback_target) if event.rollback_target else None
    while event is not None:
        yield event
        event = get_event(client, event.rollback_target) if event.rollback_target else None


def list_events(
    client: MlflowClient, model: str, *, stage: str | None = None, limit: int | None = None
) -> list[Event]:
    """Return the events of a model, newest first."""
    condition = _IS_EVENT + (f" and tags.stage = '{stage}'" if stage else "")
    return [event_from_run(run) for run in find_runs(client, model, condition, limit=limit)]


def open_events(client: MlflowClient, model: str) -> list[Event]:
    """Return the events that are in progress or were left open by a crash, oldest first."""
    condition = f"{_IS_EVENT} and attributes.status = 'RUNNING'"
    return [event_from_run(run) for run in reversed(find_runs(client, model, condition))]


def stages_moved(client: MlflowClient, model: str) -> list[str]:
    """Return the stages that any event was about to move, sorted."""
    prefix = f"{_CHAIN_END}."
    tags = _experiment_tags(client, model)
    return sorted(key.removeprefix(prefix) for key in tags if key.startswith(prefix))


def find_runs(client: MlflowClient, model: str, condition: str, *, limit: int | None = None) -> list[Run]:
    """Return runs of a model's history, newest first."""
    with translate_errors(client.tracking_uri):
        experiment = client.get_experiment_by_name(experiment_name(model))
        if experiment is None:
            return []
        return experiments.find_runs(client, experiment.experiment_id, condition, limit)


def find_or_make_experiment(client: MlflowClient, model: str) -> str:
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
    """Return the run before the first event. If it does not appear, its maker was killed."""
    experiment_id = find_or_make_experiment(client, model)
    deadline = time.monotonic() + 5
    known = _experiment_tags(client, model).get(_ROOT)
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


def check_not_deleted(client: MlflowClient, model: str) -> None:
    """Check that the history of a model was not deleted.

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
