"""Open training runs and log parameters, metrics, data and files with them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.dataset_source_registry import get_dataset_source_from_json
from mlflow.data.pandas_dataset import from_pandas
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from pipeline.errors import PipelineError
from registry_tools.errors import RegistryUnavailable
from registry_tools.mlflow_store import experiments, sqlite_store
from registry_tools.mlflow_store.client import translate_errors, upsert

# What MLflow calls a run that nobody named.
_GENERATED_NAME = re.compile(r"[a-z]+-[a-z]+-[0-9]+")
_UI_TAGS = experiments.TRAINING | experiments.view(
    "best",
    "metrics.`accuracy`",
    [
        *("metrics.`accuracy`", "metrics.`log_loss`", "metrics.`cv_accuracy_mean`"),
        *("params.`model`", "attributes.`Models`"),
    ],
)


@contextlib.contextmanager
def training_run(experiment: str, run_name: str) -> Iterator[str]:
    """Open a run, or resume the one that `mlflow run` has opened; yield its id.

    It ends FINISHED, FAILED if the body raises, or KILLED if it is interrupted. Inside another run
    it is a child of that one.

    Parameters
    ----------
    experiment
        Where a new run goes, unless MLFLOW_EXPERIMENT_NAME or MLFLOW_EXPERIMENT_ID says otherwise.
    run_name
        What the UI shows.

    Raises
    ------
    PipelineError
        If the store is unavailable, or has no such run.
    """
    where = mlflow.get_tracking_uri()
    with translate_errors(where), _open_run(where, experiment, run_name) as active:
        _set_ui_tags(active.info.experiment_id)
        try:
            yield active.info.run_id
        except (KeyboardInterrupt, SystemExit):
            mlflow.end_run("KILLED")
            raise


@contextlib.contextmanager
def separate_runs() -> Iterator[None]:
    """Let a training in the body open a run of its own, whichever run `mlflow run` has opened."""
    names = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(before)


def delete_empty_run(run_id: str) -> None:
    """Delete the run that `mlflow run` opened for a command that was mistyped and logged nothing.

    MLflow keeps a deleted run until `mlflow gc`, and the UI shows it only if you ask for it.
    """
    client = MlflowClient()
    with contextlib.suppress(MlflowException, OSError):  # unavailable: the command has failed already
        if not client.get_run(run_id).data.metrics:
            client.set_terminated(run_id, "FAILED")  # or `mlflow run` would end it, which fails now
            client.delete_run(run_id)


def _open_run(where: str, experiment: str, run_name: str) -> mlflow.ActiveRun:
    parent = mlflow.active_run()
    if parent is not None:
        place = parent.info.experiment_id
        return mlflow.start_run(experiment_id=place, run_name=run_name, nested=True)
    new = sqlite_store.check_writable(where)
    try:
        if new is not None:
            sqlite_store.create(new)
        if "MLFLOW_RUN_ID" in os.environ:
            active = mlflow.start_run()
            if _GENERATED_NAME.fullmatch(active.info.run_name or ""):
                mlflow.set_tag("mlflow.runName", run_name, synchronous=True)
            return active
        return mlflow.start_run(experiment_id=_experiment(experiment), run_name=run_name)
    except OSError as error:
        # MLflow makes the folder of a new SQLite store itself.
        raise RegistryUnavailable(f"the registry at {where} cannot be used: {error}") from error
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        asked = "MLFLOW_RUN_ID" if "MLFLOW_RUN_ID" in os.environ else "MLFLOW_EXPERIMENT_ID"
        raise PipelineError(
            f"{asked}={os.environ.get(asked)} is not in {where} as seen from {Path.cwd()}: unset "
            "it, or set MLFLOW_TRACKING_URI to an address that means the same everywhere"
        ) from error


def _experiment(name: str) -> str:
    """Return the id of the experiment that a new run belongs to; made if it is new."""
    if "MLFLOW_EXPERIMENT_ID" in os.environ:
        return os.environ["MLFLOW_EXPERIMENT_ID"]
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", name)
    return experiments.find_or_make(MlflowClient(), name, _UI_TAGS)[0].experiment_id


def _set_ui_tags(experiment_id: str) -> None:
    client = MlflowClient()
    known = client.get_experiment(experiment_id).tags
    for key in _UI_TAGS.keys() - known.keys():
        upsert(partial(client.set_experiment_tag, experiment_id, key, _UI_TAGS[key]))


def log_metrics(
    run_id: str,
    params: Mapping[str, str],
    metrics: Mapping[str, float],
    tags: Mapping[str, str],
    description: str,
) -> None:
    """Log parameters, metrics, tags and the description of a run in one call.

    `mlflow run` has logged its entry point's parameters already, as text, and MLflow refuses to
    log another spelling of one: only what is not there yet is logged.
    """
    client = MlflowClient()
    there = client.get_run(run_id).data.params
    now = time.time_ns() // 1_000_000
    client.log_batch(
        run_id,
        metrics=[Metric(key, value, now, 0) for key, value in metrics.items()],
        params=[Param(key, value) for key, value in params.items() if key not in there],
        tags=[RunTag(key, value) for key, value in {**tags, MLFLOW_RUN_NOTE: description}.items()],
        synchronous=True,
    )


def log_dataset(table: pd.DataFrame, *, source: str, target: str, name: str, digest: str) -> None:
    """Log the table as the run's input, with MLflow's schema and profile.

    A source that is no file, such as one of scikit-learn's tables, is logged as code. MLflow's
    digests have eight hexadecimal digits: here the first eight of ours, a SHA-256.
    """
    origin = (
        # Not by its text alone: two kinds of source that MLflow knows claim a path.
        get_dataset_source_from_json(json.dumps({"uri": source}), "local")
        if Path(source).is_file()
        else CodeDatasetSource({"source": source})
    )
    dataset = from_pandas(table, source=origin, targets=target, name=name, digest=digest[:8])
    upsert(partial(mlflow.log_input, dataset, context="training"))


@contextlib.contextmanager
def artifacts_folder() -> Iterator[Path]:
    """Yield an empty folder; all that the body puts there is logged with the run at its end."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
        mlflow.log_artifacts(folder)
