"""Run one training: from parameters to a registered version in its stage.

`train` loads and splits the table, fits and evaluates the pipeline, logs everything to MLflow,
registers the version and sets its stage.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import confusion_matrix
from sklearn.pipeline import Pipeline

from pipeline.data import split
from pipeline.data.dataset import Dataset
from pipeline.data.folds import check_folds
from pipeline.data.load import load_dataset
from pipeline.params.definitions import TrainParams
from pipeline.tracking import runs, store
from pipeline.tracking.model_logging import log_model
from pipeline.tracking.registration import register_version, registered_version, set_stage
from pipeline.training import model_pipeline
from pipeline.training.baseline import make_baseline, write_baseline
from pipeline.training.model_card import render_model_card, run_name
from pipeline.training.save_plots import save_plots
from registry_tools.errors import first_line
from registry_tools.models import evidence
from registry_tools.models.manifest import EVIDENCE, write_manifest
from registry_tools.models.prediction_shape import check_predictions
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.stats import metrics

_log = logging.getLogger(__name__)

EXAMPLE_ROWS = 5


@dataclass(frozen=True)
class TrainResult:
    """The result of a training: its run, its version, and the metrics on the holdout."""

    run_id: str
    store: str  # the tracking URI
    name: str
    version: int
    stage: str
    train_rows: int
    holdout_rows: int
    metrics: dict[str, float]
    example: tuple[Any, ...]  # the features of one held-out row


@dataclass(frozen=True)
class FittedModel:
    """A fitted estimator with its predictions on the holdout and its metrics."""

    estimator: Pipeline
    predicted: npt.NDArray[np.int64]  # shape (holdout rows,)
    probabilities: npt.NDArray[np.float64] | None  # shape (holdout rows, classes)
    metrics: dict[str, float]


def train(params: TrainParams) -> TrainResult:
    """Train, evaluate, log and register a model, then set its stage.

    Raises
    ------
    InvalidParameter, DataError
        If the parameters or the table are invalid. No run has been opened then.
    PipelineError, RegistryToolsError
        If the store fails. The run ends FAILED, and the stage keeps its version.
    """
    dataset = load_dataset(params)
    rows = split.split_rows(dataset, params)
    training, holdout = dataset.take(rows[0]), dataset.take(rows[1])
    check_folds(training, params)
    trusted = TrustPolicy.from_environment().trusted
    model_pipeline.check_model_params(params, training.features, training.labels, trusted)

    with runs.training_run(params.name, run_name(params)) as run_id:
        with _log_warnings():
            fitted = _fit(params, dataset, training, holdout)
        counts = confusion_matrix(holdout.labels, fitted.predicted, labels=range(len(dataset.target_names)))
        _warn_if_no_better_than_majority(counts, dataset.target_names)
        description = render_model_card(params, training, holdout, fitted.metrics, counts)
        tags = {"model": params.model, "data_digest": dataset.digest}
        runs.log_metrics(run_id, params.as_text(), fitted.metrics, tags, description)
        _log_dataset(dataset, Path(params.data).stem)
        logged = log_model(
            fitted.estimator,
            example=holdout.features.head(EXAMPLE_ROWS),
            features=dataset.features,
            predicted=fitted.predicted,
            target_names=dataset.target_names,
            trusted=trusted,
        )
        with runs.artifacts_folder() as folder:
            _write_evidence(folder / EVIDENCE, dataset, training, holdout, fitted)
            manifest = write_manifest(folder / EVIDENCE, logged.manifest)
            if params.plots:
                with _log_warnings():
                    _draw_plots(folder / "plots", params, training, holdout, fitted, counts)
        tags["accuracy"] = f"{fitted.metrics['accuracy']:.4f}"
        version = register_version(
            logged, manifest, name=params.name, run_id=run_id, tags=tags, description=description
        )
        set_stage(params.name, params.stage, version)
    return TrainResult(
        run_id,
        store.address(),
        params.name,
        version,
        params.stage,
        len(training.labels),
        len(holdout.labels),
        fitted.metrics,
        tuple(holdout.features.iloc[0]),
    )


def find_result(params: TrainParams, run_id: str, metrics: Mapping[str, float]) -> TrainResult | None:
    """Return the result of an earlier training; None if it registered no version.

    Parameters
    ----------
    params
        Those that the training had.
    run_id, metrics
        Of its run.
    """
    version = registered_version(run_id)
    if version is None:
        return None
    dataset = load_dataset(params)
    rows = split.split_rows(dataset, params)
    example = tuple(dataset.take(rows[1]).features.iloc[0])
    counts = len(rows[0]), len(rows[1])
    return TrainResult(
        run_id, store.address(), params.name, version, params.stage, *counts, dict(metrics), example
    )


def _log_dataset(dataset: Dataset, name: str) -> None:
    table = dataset.features.copy()
    table[dataset.target] = _label_names(dataset)
    runs.log_dataset(table, source=dataset.source, target=dataset.target, name=name, digest=dataset.digest)


def _fit(params: TrainParams, dataset: Dataset, training: Dataset, holdout: Dataset) -> FittedModel:
    class_size = int(training.labels.value_counts().min())
    estimator = model_pipeline.build_pipeline(params, dataset.features, class_size)
    estimator.fit(training.features, training.labels)
    rows = len(holdout.labels)
    predicted = check_predictions(estimator.predict(holdout.features), rows)
    probabilities = None
    if hasattr(estimator, "predict_proba"):
        probabilities = check_predictions(estimator.predict_proba(holdout.features), rows, "predict_proba")
    values = metrics.classification_metrics(
        holdout.labels.to_numpy(), predicted, probabilities, dataset.target_names
    )
    values |= _cross_validate(params, dataset, training)
    return FittedModel(estimator, predicted, probabilities, values)


def _cross_validate(params: TrainParams, dataset: Dataset, training: Dataset) -> dict[str, float]:
    """Return mean and standard deviation of the accuracy over folds of the training rows."""
    # Threads are faster than processes here: the folds of a small table take less time than the start
    # of a process, and the estimators release the interpreter lock during most of their work.
    with joblib.parallel_config("threading", n_jobs=-1):
        return model_pipeline.cross_validate(params, dataset.features, training)


def _warn_if_no_better_than_majority(counts: npt.NDArray[np.int64], names: tuple[str, ...]) -> None:
    """Warn if always predicting the most frequent class gives the same or a higher accuracy.

    Parameters
    ----------
    counts
        Holdout rows, shape (true classes, predicted classes).
    names
        The class names, in the order of `counts`.
    """
    commonest = int(counts.sum(axis=1).argmax())
    if counts.trace() <= counts[commonest].sum():
        share = counts[commonest].sum() / counts.sum()
        _log.warning(
            "no better than always predicting %s: correct on %.4f of the held-out rows",
            names[commonest],
            share,
        )


def _write_evidence(
    folder: Path, dataset: Dataset, training: Dataset, holdout: Dataset, fitted: FittedModel
) -> None:
    folder.mkdir()
    names = pd.Series(_label_names(holdout), name=holdout.target)
    evidence.write_holdout(folder, holdout.features, names)
    evidence.write_training_rows(folder, dataset.features, training.features)
    few = slice(0, EXAMPLE_ROWS)
    probabilities = None if fitted.probabilities is None else fitted.probabilities[few]
    evidence.write_recorded_predictions(
        folder, evidence.RecordedPredictions(holdout.features.iloc[few], fitted.predicted[few], probabilities)
    )
    predicted = np.asarray(dataset.target_names, dtype=object)[fitted.predicted]
    write_baseline(folder, make_baseline(training.features, dataset.target, predicted, names.to_numpy()))


def _draw_plots(
    folder: Path,
    params: TrainParams,
    training: Dataset,
    holdout: Dataset,
    fitted: FittedModel,
    counts: npt.NDArray[np.int64],
) -> None:
    class_size = int(training.labels.value_counts().min())
    save_plots(
        folder,
        lambda: model_pipeline.build_pipeline(params, training.features, class_size),
        fitted.estimator,
        training,
        holdout,
        counts,
        fitted.probabilities,
        params.random_state,
    )


@contextmanager
def _log_warnings() -> Iterator[None]:
    """Log each different warning of the estimators once, as one line."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for text in dict.fromkeys(first_line(w.message).rstrip(":") for w in caught):
        _log.warning("%s", text)


def _label_names(dataset: Dataset) -> npt.NDArray[Any]:
    return np.asarray(dataset.target_names, dtype=object)[dataset.labels]
