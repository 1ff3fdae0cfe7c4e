"""Create, close, copy and delete the runs that this library makes."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import DatasetInput, Metric, Param, Run, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from registry_tools.errors import error_summary
from registry_tools.mlflow_store import experiments, heartbeat
from registry_tools.mlflow_store.client import translate_errors, upsert
from registry_tools.processes import process_is_running


def start(client: MlflowClient, experiment: str, description: str, tags: Mapping[str, str]) -> str:
    """Open a run, and create its experiment if needed."""
    with translate_errors(client.tracking_uri):
        place = experiments.find_or_make(client, experiment, experiments.described(description))
        return client.create_run(place, tags=dict(tags)).info.run_id


def record(
    client: MlflowClient,
    experiment_id: str,
    tags: Mapping[str, str],
    metrics: Mapping[str, float],
    file: tuple[str, Mapping[str, object]] | None,
) -> Run:
    """Open a run with tags, metrics and optionally a JSON file, given as its name and content."""
    with translate_errors(client.tracking_uri):
        run = client.create_run(experiment_id, tags=dict(tags))
        if file is not None:
            client.log_dict(run.info.run_id, dict(file[1]), file[0])
        client.log_batch(run.info.run_id, metrics=metrics_now(metrics), synchronous=True)
    return run


def end(
    client: MlflowClient,
    run_id: str,
    status: str,
    metrics: Mapping[str, float],
    tags: Mapping[str, str],
    params: Mapping[str, str] | None = None,
) -> None:
    """Log metrics, tags and parameters, and end a run, also if they cannot be logged.

    The status is FINISHED, FAILED or KILLED.
    """
    logged = metrics_now(metrics), _params(params or {}), _run_tags(tags)
    with translate_errors(client.tracking_uri):
        try:
            client.log_batch(run_id, *logged, synchronous=True)
        finally:
            client.set_terminated(run_id, status)


def end_with_error(client: MlflowClient, run_id: str, error: BaseException) -> None:
    """End a run as KILLED if it was interrupted, else as FAILED, with the error as tag and note."""
    killed = isinstance(error, (KeyboardInterrupt, SystemExit))
    reason = "interrupted" if killed else error_summary(error, 500)
    tags = {"error": reason, MLFLOW_RUN_NOTE: reason}
    end(client, run_id, "KILLED" if killed else "FAILED", {}, tags)


def metrics_now(metrics: Mapping[str, float]) -> list[Metric]:
    """Return values by name as metrics of MLflow, measured now."""
    now = time.time_ns() // 1_000_000
    return [Metric(key, value, now, 0) for key, value in metrics.items()]


def _params(params: Mapping[str, str]) -> list[Param]:
    return [Param(key, value) for key, value in params.items()]


def _run_tags(tags: Mapping[str, str]) -> list[RunTag]:
    return [RunTag(key, value) for key, value in tags.items()]


def start_in_process(client: MlflowClient, experiment: str, description: str, tags: Mapping[str, str]) -> str:
    """Open a run with tags that name machine and process, and end runs that ended processes left open."""
    host = socket.gethostname()
    with translate_errors(client.tracking_uri):
        for run in _search(client, experiment, f"attributes.status = 'RUNNING' and tags.host = '{host}'"):
            process = run.data.tags.get("process", "")
            if process.isdigit() and not process_is_running(int(process)):
                client.set_terminated(run.info.run_id, "KILLED")
    return start(client, experiment, description, {**tags, "host": host, "process": str(os.getpid())})


def is_open_elsewhere(run: Run) -> bool:
    """Return whether another process of this machine works on a run that `start_in_process` opened."""
    process = run.data.tags.get("process", "")
    is_here = run.data.tags.get("host") == socket.gethostname() and process.isdigit()
    is_open = run.info.status == "RUNNING" and is_here and int(process) != os.getpid()
    return is_open and process_is_running(int(process))


def _search(client: MlflowClient, experiment: str, condition: str) -> list[Run]:
    """Return runs of an experiment; none if the experiment does not exist."""
    found = experiments.find(client, experiment)
    return experiments.find_runs(client, found.experiment_id, condition) if found is not None else []


def copy_run(
    source: MlflowClient, run_id: str, target: MlflowClient, experiment: str, tags: Mapping[str, str]
) -> str:
    """Copy a run with its parameters, metrics, tags and datasets; the copy stays open.

    Parameters
    ----------
    source, run_id
        The run to copy, without its artifacts.
    target, experiment
        The registry and experiment for the copy. A missing experiment is created.
    tags
        Additional tags of the copy.

    Returns
    -------
    str
        The id of the copy.
    """
    with translate_errors(source.tracking_uri):
        run = source.get_run(run_id)
        metrics = [metric for key in run.data.metrics for metric in source.get_metric_history(run_id, key)]
        kept = {key: value for key, value in run.data.tags.items() if _is_kept(key)}
    description = f"Trainings of {experiment}, copied from other tracking servers."
    with translate_errors(target.tracking_uri):
        made = target.create_run(
            experiments.find_or_make(target, experiment, experiments.described(description)),
            start_time=run.info.start_time,
            tags={**kept, **tags},
            run_name=run.info.run_name,
        ).info.run_id
        _log(target, made, run, metrics)
    return made


def _log(target: MlflowClient, run_id: str, run: Run, metrics: list[Metric]) -> None:
    plain = [Metric(m.key, m.value, m.timestamp, m.step) for m in metrics]
    target.log_batch(run_id, plain, _params(run.data.params), synchronous=True)
    inputs = run.inputs.dataset_inputs if run.inputs else []
    if inputs:
        # Another copy at the same time may add the same dataset to the experiment first.
        upsert(partial(target.log_inputs, run_id, [DatasetInput(i.dataset, i.tags) for i in inputs]))


def add_files(client: MlflowClient, run_id: str, folder: Path, where: str) -> str:
    """Upload a folder to a run's artifacts, and return the URI of the uploaded folder."""
    with translate_errors(client.tracking_uri):
        client.log_artifacts(run_id, str(folder), where)
        return f"{client.get_run(run_id).info.artifact_uri}/{where}"


def finish(client: MlflowClient, run_id: str, tags: Mapping[str, str] | None = None) -> None:
    """Set tags of a run, if there are any, and end it as FINISHED."""
    with translate_errors(client.tracking_uri):
        if tags:
            client.log_batch(run_id, tags=_run_tags(tags), synchronous=True)
        client.set_terminated(run_id)


def finish_if_expired(client: MlflowClient, run_id: str) -> None:
    """End a run that a killed process left open."""
    if heartbeat.expired(client, [run_id]):
        finish(client, run_id)


def delete(client: MlflowClient, run_id: str) -> None:
    """Delete a run."""
    with translate_errors(client.tracking_uri):
        client.delete_run(run_id)


def delete_expired(client: MlflowClient, experiment: str, tag: str, value: str) -> None:
    """Delete the runs with a tag whose process failed or was killed, from an experiment."""
    left = _search(client, experiment, f"tags.{tag} = '{value}' and attributes.status != 'FINISHED'")
    still_open = [run.info.run_id for run in left if run.info.status == "RUNNING"]
    ended = [run.info.run_id for run in left if run.info.status != "RUNNING"]
    for run_id in [*ended, *heartbeat.expired(client, still_open)]:
        delete(client, run_id)


def _is_kept(tag: str) -> bool:
    """Return whether to copy a tag: it describes the training, not the storage of the run."""
    return not tag.startswith("mlflow.") or tag in {
        "mlflow.user",
        "mlflow.note.content",
        "mlflow.source.name",
        "mlflow.source.type",
        "mlflow.source.git.commit",
        "mlflow.project.entryPoint",
    }
