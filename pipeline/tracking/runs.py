"""Open training runs, and log parameters, metrics, data and files to them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.dataset_source import DatasetSource
from mlflow.data.dataset_source_registry import get_dataset_source_from_json
from mlflow.data.pandas_dataset import from_pandas
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from pipeline.data.dataset import Dataset
from pipeline.errors import PipelineError
from registry_tools.errors import RegistryUnavailable
from registry_tools.mlflow_store import experiments, sqlite_store
from registry_tools.mlflow_store.client import translate_errors, upsert

# The form of the names that MLflow generates for runs without a name.
_GENERATED_NAME = re.compile(r"[a-z]+-[a-z]+-[0-9]+")
_DESCRIPTION = (
    "Trainings: one run for each training, with its parameters, metrics, plots, data and model. A sweep has "
    "a child run for each trial. To compare runs, select some and press Compare."
)
_MOST_METRICS = 900  # in one call; MLflow accepts at most 1,000
_UI_TAGS = experiments.described(_DESCRIPTION) | experiments.view(
    "best",
    "metrics.`accuracy`",
    [
        *("metrics.`accuracy`", "metrics.`log_loss`", "metrics.`cv/accuracy_mean`"),
        *("params.`estimator`", "attributes.`Models`"),
    ],
)


def store_address() -> str:
    """Return the tracking URI of the store in which the pipeline logs its runs."""
    return mlflow.get_tracking_uri()


@contextlib.contextmanager
def training_run(experiment: str, run_name: str) -> Iterator[str]:
    """Open a run, or resume the run that `mlflow run` opened; yield the run id.

    The run ends with the status FINISHED, FAILED if the body raises, or KILLED if it is interrupted. If
    another run is active, the new run becomes its child.

    Parameters
    ----------
    experiment
        The experiment of a new run; MLFLOW_EXPERIMENT_ID and MLFLOW_EXPERIMENT_NAME override it.
    run_name
        The name of the run in the UI.

    Raises
    ------
    RegistryUnavailable
        If the store cannot be reached or used.
    PipelineError
        If the store does not have the run or the experiment that the environment names.
    """
    where = store_address()
    with translate_errors(where), _open_run(where, experiment, run_name) as active:
        _set_ui_tags(active.info.experiment_id)
        try:
            yield active.info.run_id
        except (KeyboardInterrupt, SystemExit):
            mlflow.end_run("KILLED")
            raise


@contextlib.contextmanager
def separate_runs() -> Iterator[None]:
    """Hide the run of `mlflow run` from the body, so that a training there opens a new run."""
    names = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(before)


def delete_empty_run(run_id: str) -> None:
    """Delete the run that `mlflow run` opened for a mistyped command, if it has no metrics.

    MLflow keeps a deleted run until `mlflow gc`, and the UI shows it only if you ask for it.
    """
    client = MlflowClient()
    with contextlib.suppress(MlflowException, OSError):  # unavailable: the command has failed already
        if not client.get_run(run_id).data.metrics:
            client.set_terminated(run_id, "FAILED")  # `mlflow run` could not end the deleted run
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
        # MLflow creates the folder of a new SQLite store, which may fail.
        raise RegistryUnavailable(f"the registry at {where} cannot be used: {error}") from error
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        asked = "MLFLOW_RUN_ID" if "MLFLOW_RUN_ID" in os.environ else "MLFLOW_EXPERIMENT_ID"
        raise PipelineError(
            f"{asked}={os.environ.get(asked)} does not exist in the store {where}, used from {Path.cwd()}: "
            "unset it, or set MLFLOW_TRACKING_URI to an absolute address"
        ) from error


def _experiment(name: str) -> str:
    """Return the id of the experiment for a new run; create the experiment if it does not exist."""
    if "MLFLOW_EXPERIMENT_ID" in os.environ:
        return os.environ["MLFLOW_EXPERIMENT_ID"]
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", name)
    return experiments.find_or_make(MlflowClient(), name, _UI_TAGS)


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

    `mlflow run` has already logged the parameters of its entry point as text, and MLflow refuses a
    different text for the same parameter. Such parameters are not logged again.
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


def log_curves(run_id: str, curves: Mapping[str, Sequence[tuple[int, float]]]) -> None:
    """Log curves, which the UI draws as lines; give curves of one chart names like `loss/train`.

    Parameters
    ----------
    run_id
        The run.
    curves
        Points by the name of the metric: the step, such as an iteration, and the value.
    """
    now = time.time_ns() // 1_000_000
    points = [Metric(key, value, now, step) for key, curve in curves.items() for step, value in curve]
    for start in range(0, len(points), _MOST_METRICS):
        MlflowClient().log_batch(run_id, metrics=points[start : start + _MOST_METRICS], synchronous=True)


def log_dataset(dataset: Dataset, name: str) -> None:
    """Log a table as the input of the active run, with MLflow's schema and profile.

    Parameters
    ----------
    dataset
        The table. A source that is no file, such as a table of scikit-learn, is logged as code. MLflow's
        digests are short, so only the first eight digits of the digest are logged.
    name
        The name of the dataset in the UI.
    """
    source: DatasetSource = CodeDatasetSource({"source": dataset.source})
    if Path(dataset.source).is_file():
        # The kind is given explicitly, because two kinds of MLflow's sources match a path.
        source = get_dataset_source_from_json(json.dumps({"uri": dataset.source}), "local")
    table = dataset.features.copy()
    table[dataset.target] = dataset.label_values()
    digest = dataset.digest[:8]
    logged = from_pandas(table, source=source, targets=dataset.target, name=name, digest=digest)
    upsert(partial(mlflow.log_input, logged, context="training"))


@contextlib.contextmanager
def artifacts_folder() -> Iterator[Path]:
    """Yield an empty folder; after the body, all its files are logged as artifacts of the active run."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
        mlflow.log_artifacts(folder)
