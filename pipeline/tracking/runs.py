"""Everything that the pipeline says to MLflow."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import mlflow
import mlflow.sklearn
import pandas as pd
import skops.io
from mlflow import MlflowClient
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.dataset_source_registry import get_dataset_source_from_json
from mlflow.data.pandas_dataset import from_pandas
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature, infer_signature
from mlflow.models.model import ModelInfo
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE
from skops.io.exceptions import UntrustedTypesFoundException

from pipeline.errors import PipelineError, RegistrationError, UntrustedType
from pipeline.tracking import store
from registry_tools.errors import RegistryToolsError, RegistryUnavailable
from registry_tools.mlflow_store import experiments, registry, stages
from registry_tools.mlflow_store.client import translate_errors, upsert
from registry_tools.models import artifacts
from registry_tools.models import manifest as manifests

_log = logging.getLogger(__name__)

# What MLflow calls a run that nobody named.
_INVENTED_NAME = re.compile(r"[a-z]+-[a-z]+-[0-9]+")
_UI = experiments.TRAINING | experiments.view(
    "best",
    "metrics.`accuracy`",
    [
        *("metrics.`accuracy`", "metrics.`log_loss`", "metrics.`cv_accuracy_mean`"),
        *("params.`model`", "attributes.`Models`"),
    ],
)
# What a registered model needs to answer. Said here, MLflow need not find it out in a subprocess.
_MODEL_NEEDS = ("mlflow", "scikit-learn", "skops", "numpy", "pandas", "scipy")


@dataclass(frozen=True)
class SavedModel:
    """A model that MLflow has stored with a run, not yet registered."""

    uri: str
    model_id: str
    manifest: Mapping[str, str]


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
        If the store does not answer, or has no such run.
    """
    where = mlflow.get_tracking_uri()
    with translate_errors(where), _open_run(where, experiment, run_name) as active:
        _say_ui(active.info.experiment_id)
        try:
            yield active.info.run_id
        except (KeyboardInterrupt, SystemExit):
            mlflow.end_run("KILLED")
            raise


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """Let a training in the body open a run of its own, whichever run `mlflow run` has opened."""
    names = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(before)


def _open_run(where: str, experiment: str, run_name: str) -> mlflow.ActiveRun:
    around = mlflow.active_run()
    if around is not None:
        place = around.info.experiment_id
        return mlflow.start_run(experiment_id=place, run_name=run_name, nested=True)
    new = store.check(where)
    try:
        if new is not None:
            store.make(new)
        if "MLFLOW_RUN_ID" in os.environ:
            active = mlflow.start_run()
            if _INVENTED_NAME.fullmatch(active.info.run_name or ""):
                mlflow.set_tag("mlflow.runName", run_name)
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
    return experiments.find_or_make(MlflowClient(), name, _UI)[0].experiment_id


def _say_ui(experiment_id: str) -> None:
    client = MlflowClient()
    known = client.get_experiment(experiment_id).tags
    for key in _UI.keys() - known.keys():
        upsert(partial(client.set_experiment_tag, experiment_id, key, _UI[key]))


def log_figures(
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
    mlflow.log_input(dataset, context="training")


@contextlib.contextmanager
def artifacts_folder() -> Iterator[Path]:
    """Yield an empty folder; all that the body puts there is logged with the run at its end."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
        mlflow.log_artifacts(folder)


def log_model(
    estimator: Any,
    *,
    example: pd.DataFrame,
    features: pd.DataFrame,
    predicted: Any,
    target_names: Sequence[str],
    trusted: Sequence[str],
) -> SavedModel:
    """Store the model with the active run, and take the manifest of what the store then serves.

    Parameters
    ----------
    estimator
        A fitted scikit-learn estimator.
    example
        A few rows, stored as the input example.
    features, predicted
        Rows and their predictions, from which the signature is inferred.
    target_names
        The class names in code order, stored as the model's metadata.
    trusted
        The types that it may hold, beside those that skops trusts itself.

    Raises
    ------
    UntrustedType
        If it holds others.
    """
    with warnings.catch_warnings():
        # Integer columns are signed as such: a later hole there is for the pipeline's imputer.
        warnings.filterwarnings("ignore", message=".*integer column", category=UserWarning)
        info = _log_model(
            estimator, example, infer_signature(features, predicted), target_names, trusted
        )
    client = MlflowClient()
    location = client.get_logged_model(info.model_id).artifact_location
    with artifacts.download(client, location) as folder:
        manifest = manifests.manifest_of(folder)
    return SavedModel(f"models:/{info.model_id}", info.model_id, manifest)


def _log_model(
    estimator: Any,
    example: pd.DataFrame,
    signature: ModelSignature,
    target_names: Sequence[str],
    trusted: Sequence[str],
) -> ModelInfo:
    try:
        return mlflow.sklearn.log_model(
            estimator,
            name="model",
            signature=signature,
            input_example=example,
            pip_requirements=[f"{name}=={installed_version(name)}" for name in _MODEL_NEEDS],
            serialization_format="skops",
            skops_trusted_types=list(trusted),
            metadata={"target_names": list(target_names)},
        )
    except MlflowException as error:
        # MLflow's words name its own argument, and it raises them without a cause.
        if not isinstance(error.__context__, UntrustedTypesFoundException):
            raise
        held = set(skops.io.get_untrusted_types(data=skops.io.dumps(estimator)))
        raise UntrustedType(held - set(trusted)) from error


def register(
    saved: SavedModel,
    *,
    name: str,
    run_id: str,
    tags: Mapping[str, str],
    description: str,
) -> int:
    """Make a version of a stored model, whole in one call, and return its number."""
    digest = manifests.digest_of(saved.manifest)
    return registry.register(
        MlflowClient(),
        name,
        source=saved.uri,
        run_id=run_id,
        model_id=saved.model_id,
        description=description,
        tags={**tags, registry.DIGEST_TAG: digest},
    )


def set_stage(name: str, stage: str, version: int) -> None:
    """Point the stage at the version, and its legacy mirror after it.

    Raises
    ------
    RegistrationError
        If the registry refuses: the version is there, but the stage still points where it did.
    """
    client = MlflowClient()
    try:
        stages.move_alias(client, name, stage, version)
    except RegistryToolsError as error:
        raise RegistrationError(
            f"{name} version {version} is registered, but stage {stage} was not set: {error}"
        ) from error
    for _ in range(3):
        stages.mirror_legacy_stage(client, name, stage, version)
        held = stages.stage_holder(client, name, stage)
        if held is None or held == version:
            break
        version = held  # of two trainings that end at once, the mirror follows the later one
