"""Open training runs, and log parameters, metrics, data and files to them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import mlflow
import pandas as pd
from matplotlib.figure import Figure
from mlflow import MlflowClient
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.dataset import Dataset as MlflowDataset
from mlflow.data.dataset_source import DatasetSource
from mlflow.data.dataset_source_registry import get_dataset_source_from_json
from mlflow.data.pandas_dataset import from_pandas
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE
from PIL import Image

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
_UI_TAGS = experiments.described(_DESCRIPTION)


def store_address() -> str:
    """Return the tracking URI of the store in which the pipeline logs its runs."""
    return mlflow.get_tracking_uri()


@contextlib.contextmanager
def training_run(experiment: str, run_name: str, view: Mapping[str, str]) -> Iterator[str]:
    """Open a run, or resume the run that `mlflow run` opened; yield the run id.

    The run ends with the status FINISHED, FAILED if the body raises, or KILLED if it is interrupted. If
    another run is active, the new run becomes its child.

    Parameters
    ----------
    experiment
        The experiment of a new run; MLFLOW_EXPERIMENT_ID and MLFLOW_EXPERIMENT_NAME override it.
    run_name
        The name of the run in the UI.
    view
        The tags with the view of the experiment; they replace those of an earlier training.

    Raises
    ------
    RegistryUnavailable
        If the store cannot be reached or used.
    PipelineError
        If the store does not have the run or the experiment that the environment names.
    """
    where = store_address()
    with translate_errors(where), _open_run(where, experiment, run_name) as active:
        experiments.set_ui_tags(MlflowClient(), active.info.experiment_id, _UI_TAGS, view)
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


def log_params(run_id: str, params: Mapping[str, str], tags: Mapping[str, str], description: str) -> None:
    """Log parameters, tags and the description of a run in one call.

    `mlflow run` has already logged the parameters of its entry point as text, and MLflow refuses a
    different text for the same parameter. Such parameters are not logged again.
    """
    client = MlflowClient()
    there = client.get_run(run_id).data.params
    client.log_batch(
        run_id,
        params=[Param(key, value) for key, value in params.items() if key not in there],
        tags=[RunTag(key, value) for key, value in {**tags, MLFLOW_RUN_NOTE: description}.items()],
        synchronous=True,
    )


def log_metrics(
    run_id: str, metrics: Mapping[str, float], model_id: str, datasets: Mapping[str, MlflowDataset]
) -> None:
    """Log the metrics of a model, each linked to the model and to the rows on which it was measured.

    Parameters
    ----------
    run_id
        The run.
    metrics
        Values by name. Those of `train/` and `cv/`, and `iterations`, belong to the training rows.
    model_id
        The model of the run.
    datasets
        The inputs `training` and `holdout` of the run.
    """
    now, logged = time.time_ns() // 1_000_000, []
    for key, value in metrics.items():
        rows = datasets["training" if key.startswith(("train/", "cv/", "iterations")) else "holdout"]
        logged.append(Metric(key, value, now, 0, model_id, rows.name, rows.digest, run_id))
    MlflowClient().log_batch(run_id, metrics=logged, synchronous=True)


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
    MlflowClient().log_batch(run_id, metrics=points, synchronous=True)


def log_datasets(name: str, parts: Mapping[str, Dataset]) -> dict[str, MlflowDataset]:
    """Log parts of a table as inputs of the active run, and return the inputs by context.

    Parameters
    ----------
    name
        The name of the table; with the context it is the name of the input in the UI.
    parts
        The rows by context: `training` and `holdout`.
    """
    inputs = {context: _mlflow_dataset(part, f"{name}-{context}") for context, part in parts.items()}
    upsert(partial(mlflow.log_inputs, [*inputs.values()], [*inputs], [None] * len(inputs)))
    return inputs


def _mlflow_dataset(dataset: Dataset, name: str) -> MlflowDataset:
    """Return rows with MLflow's schema and profile.

    MLflow's digests are short, so only the first eight digits of the digest of the rows are kept.
    """
    source = dataset_source(dataset.source)
    table = dataset.features.assign(**{dataset.target: dataset.label_values()})
    digest = dataset.rows_digest()[:8]
    return from_pandas(table, source=source, targets=dataset.target, name=name, digest=digest)


def dataset_source(address: str) -> DatasetSource:
    """Return MLflow's source of a file, a folder or a URL; any other, such as a query, becomes code."""
    scheme = address.partition("://")[0].replace("https", "http")
    if os.path.exists(address):  # also for a text that is too long for a path
        scheme = "local"
    # The kind is given explicitly, because two kinds of MLflow's sources match a path.
    if scheme in {"local", "http", "s3", "gs"}:
        place = json.dumps({"url" if scheme == "http" else "uri": address})
        return get_dataset_source_from_json(place, scheme)
    return CodeDatasetSource({"source": address})


def log_picture(name: str, figure: Figure) -> None:
    """Log a figure as an image of the active run, which the UI shows among the charts."""
    png = io.BytesIO()
    figure.savefig(png, dpi=110, pil_kwargs={"compress_level": 1})  # MLflow compresses it again
    mlflow.log_image(Image.open(png).convert("RGB"), key=name, synchronous=True)


def log_table(name: str, table: pd.DataFrame) -> None:
    """Log a table as the file NAME.json of the active run, which the UI shows as a table."""
    with warnings.catch_warnings():
        # MLflow looks for pictures in the text columns in a way that pandas deprecates.
        warnings.filterwarnings("ignore", message=".*select_dtypes", category=DeprecationWarning)
        mlflow.log_table(table, f"{name}.json")


@contextlib.contextmanager
def artifacts_folder() -> Iterator[Path]:
    """Yield an empty folder; after the body, all its files are logged as artifacts of the active run."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
        mlflow.log_artifacts(folder)
