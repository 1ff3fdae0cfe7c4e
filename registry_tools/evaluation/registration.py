"""Register a model that was trained elsewhere as a version with evidence."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from sklearn.base import is_regressor

from registry_tools.data.schema import quoted_names
from registry_tools.errors import InputError
from registry_tools.evaluation.eval_data import EvalData
from registry_tools.evaluation.make_evidence import MadeEvidence, make_evidence
from registry_tools.mlflow_store import registry, runs
from registry_tools.mlflow_store.client import current_user
from registry_tools.models import artifacts, joblib_file, manifest, skops_file
from registry_tools.models.trust_policy import TrustPolicy

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class SourceModel:
    """A fitted model, the file that it came from, and the names of its classes."""

    path: Path
    estimator: Any  # a classifier or a regressor
    target_names: tuple[str, ...] = ()  # in code order; empty if it predicts names


@dataclass(frozen=True, kw_only=True)
class Registration(MadeEvidence):
    """A new version of a model that was trained elsewhere."""

    name: str
    version: int
    run_id: str
    estimator: str  # the name of its class


def register(
    connect: Callable[[], MlflowClient],
    name: str,
    source: SourceModel,
    eval_data: EvalData,
    trust_policy: TrustPolicy,
) -> Registration:
    """Save a model in the skops format, make its evidence, and register both as a new version.

    Parameters
    ----------
    connect
        Returns a client of the registry; called once the evidence is made.
    name
        The registered model; it may be new.
    source, eval_data
        The model, and labelled rows that it was not trained on.
    trust_policy
        The types that it may contain.

    Raises
    ------
    InputError
        If columns, labels or class names do not fit the model, or the rows are too few.
    VerificationError, UnsupportedOperation
        As `save_skops` and `make_evidence`.
    """
    _check_labels(source, eval_data)
    rows = _model_rows(source, eval_data)
    with tempfile.TemporaryDirectory() as scratch:
        model, folder = Path(scratch, "model"), Path(scratch, manifest.EVIDENCE)
        folder.mkdir()
        joblib_file.name_columns(source.estimator, list(rows.columns))
        skops_file.save_skops(source.estimator, model, rows, source.target_names, trust_policy)
        # The version must load without the code of the file.
        made = make_evidence(
            str(source.path), model, eval_data, replace(trust_policy, allow_code=False), folder
        )
        run_id, version = _store(connect(), name, source, model, folder, made)
    return Registration(
        name=name, version=version, run_id=run_id, estimator=type(source.estimator).__name__, **vars(made)
    )


def _check_labels(source: SourceModel, eval_data: EvalData) -> None:
    """Refuse class names that do not fit the model, and names where it predicts codes."""
    names = source.target_names
    if is_regressor(source.estimator):
        if names:
            raise InputError(
                f"--target-names {','.join(names)}: {source.path} predicts numbers: leave it out"
            )
        return
    classes = list(source.estimator.classes_)
    if names and classes != list(range(len(names))):
        raise InputError(
            f"--target-names {','.join(names)}: {len(names)} names, but {source.path} predicts "
            f"{_listed(classes)}: give a name for each of the codes 0, 1, … in order"
        )
    labels = set(eval_data.rows.labels.tolist())
    if not names and not labels & {str(value) for value in classes}:
        raise InputError(
            f"--target {eval_data.target}: its labels are {_listed(sorted(labels))}, but {source.path} "
            f"predicts {_listed(classes)}: give --target the column with these, or name the classes in this "
            "order with --target-names"
        )


def _listed(values: list[Any]) -> str:
    return ", ".join(map(str, values[:5])) + (", …" if len(values) > 5 else "")


def _model_rows(source: SourceModel, eval_data: EvalData) -> pd.DataFrame:
    """Return the columns that the model was trained on, whole numbers as float64."""
    rows, wanted = eval_data.rows.rows, getattr(source.estimator, "feature_names_in_", None)
    if wanted is not None:
        missing = [str(name) for name in wanted if name not in rows]
        if missing:
            raise InputError(
                f"{eval_data.path} has no column {quoted_names(missing)}, which {source.path} was trained "
                f"on; it has {quoted_names(list(rows))}"
            )
        rows = rows[list(wanted)]
    elif len(rows.columns) != (count := getattr(source.estimator, "n_features_in_", len(rows.columns))):
        raise InputError(
            f"{eval_data.path} has {len(rows.columns)} columns besides {eval_data.target!r}, but "
            f"{source.path} was trained on {count} without names: leave these {count}, in the order of the "
            "training"
        )
    # A model that learned from whole numbers must also take 5.5.
    return rows.astype(dict.fromkeys(rows.select_dtypes("integer"), "float64"))


def _store(
    client: MlflowClient, name: str, source: SourceModel, model: Path, folder: Path, made: MadeEvidence
) -> tuple[str, int]:
    """Upload model and evidence to a new run, register them, and return the run and the version."""
    tags = {
        "mlflow.runName": f"register {source.path.name}",
        "mlflow.user": current_user(),
        "model": type(source.estimator).__name__,
        "source_file": source.path.name,
        "source_sha256": manifest.sha256_of(source.path),
    }
    description = f"Trainings of {name}: one run for each version."
    run_id = runs.start(client, name, description, tags)
    try:
        address = artifacts.upload_verified(client, run_id, model, "model")
        artifacts.upload_verified(client, run_id, folder, manifest.EVIDENCE)
        version = registry.register(
            client, name, source=address, run_id=run_id, description="", tags=made.tags
        )
    except BaseException:
        runs.end(client, run_id, "FAILED", {}, {})
        raise
    metrics = {made.metric: made.value, f"baseline_{made.metric}": made.baseline_value}
    runs.end(client, run_id, "FINISHED", metrics, {})
    return run_id, version
