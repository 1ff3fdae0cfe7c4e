"""Run one training: from parameters to a registered version in its stage.

`train` loads and splits the table, fits and evaluates the pipeline, logs everything to MLflow,
registers the version and sets its stage.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.data import split
from pipeline.data.columns import DATES, kinds_of_columns
from pipeline.data.dataset import Dataset
from pipeline.data.folds import check_folds
from pipeline.data.leaks import warn_of_leaks
from pipeline.data.load import load_dataset
from pipeline.estimators import ESTIMATORS
from pipeline.params.definitions import TrainParams
from pipeline.params.types import as_text
from pipeline.tracking import runs
from pipeline.tracking.model_logging import log_model
from pipeline.tracking.registration import register_version, registered_version
from pipeline.training import model_pipeline
from pipeline.training.baseline import make_baseline, write_baseline
from pipeline.training.checks import check_fit, check_model_params
from pipeline.training.fit import FittedModel, fit_model
from pipeline.training.model_card import describe_version, render_model_card, run_name
from pipeline.training.plots.save_plots import save_plots
from pipeline.training.preparation import is_scaled
from pipeline.training.run_content import logged_params, predictions_table, view_of
from pipeline.training.scoring import format_value, metric_of, warn_if_no_better_than_constant
from registry_tools.errors import first_line
from registry_tools.models import evidence
from registry_tools.models.manifest import EVIDENCE, write_manifest
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.stats.metric import metric_key

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
    task: str
    metric: str  # the name of the metric that decides

    @property
    def value(self) -> float:
        """The value of the metric that decides, on the holdout."""
        return self.metrics[metric_key(self.metric)]


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
    params = model_pipeline.resolve_model(params, dataset)
    training, holdout = (dataset.take(rows) for rows in split.split_rows(dataset, params))
    check_folds(training, params)
    warn_of_leaks(training, holdout, params)
    trusted = TrustPolicy.from_environment().trusted
    check_fit(params, training)
    check_model_params(params, training, trusted)

    with runs.training_run(params.name, run_name(params), view_of(params)) as run_id:
        with _log_warnings():
            fitted = fit_model(params, dataset, training, holdout)
        key = metric_key(params.metric)
        value = fitted.metrics[key]
        warn_if_no_better_than_constant(metric_of(params), fitted.outcomes, value)
        tags = _tags(fitted)
        runs.log_params(run_id, logged_params(params), tags, render_model_card(fitted))
        parts = {"training": training, "holdout": holdout}
        datasets = runs.log_datasets(params.source().name[:100], parts)
        model_id, files = log_model(
            fitted.estimator,
            example=holdout.features.head(EXAMPLE_ROWS),
            features=dataset.features,
            predicted=fitted.predicted,
            target_names=dataset.target_names,
            trusted=trusted,
            package=ESTIMATORS[params.model].package_of(params.task),
        )
        runs.log_metrics(run_id, fitted.metrics, model_id, datasets)
        curves = {f"loss/{side}": list(enumerate(loss, 1)) for side, loss in fitted.losses.items()}
        with runs.artifacts_folder() as folder:
            (folder / "config.yaml").write_text(params.as_yaml(), encoding="utf-8")
            _write_evidence(folder / EVIDENCE, fitted)
            manifest = write_manifest(folder / EVIDENCE, files)
            if params.plots:
                with _log_warnings():
                    drawn = save_plots(folder / "plots", fitted, runs.log_picture)
                curves |= _learning_curves(drawn.get("learning_curve", []))
        runs.log_curves(run_id, curves)
        runs.log_table("holdout_predictions", predictions_table(holdout, fitted.outcomes))
        tags |= {"metric": params.metric, key: format_value(value)}
        version = register_version(
            model_id,
            manifest,
            name=params.name,
            stage=params.stage,
            run_id=run_id,
            tags=tags,
            description=describe_version(fitted),
        )
    return _result(params, run_id, version, (training, holdout), fitted.metrics)


def _learning_curves(points: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    sides = {"train": "training", "holdout": "holdout"}
    return {f"learning_curve/{key}": [(p["rows"], p[side]) for p in points] for key, side in sides.items()}


def _tags(fitted: FittedModel) -> dict[str, str]:
    """Return the tags of a run, among them the choices that the table or the folds made."""
    params = fitted.params
    tags = {
        "model": params.model,
        "task": params.task,
        "data_digest": fitted.dataset.digest,
        "scaled": as_text(is_scaled(params, fitted.dataset.features)),
    }
    if params.threshold is not None:
        tags["threshold"] = f"{fitted.estimator[-1].threshold:.6g}"
    return tags


def find_result(params: TrainParams, run_id: str, metrics: Mapping[str, float]) -> TrainResult | None:
    """Return the result of an earlier training; None if it registered no version.

    Parameters
    ----------
    params
        The resolved parameters of the training.
    run_id, metrics
        Of its run.
    """
    version = registered_version(run_id)
    if version is None:
        return None
    dataset = load_dataset(params)
    sides = [dataset.take(rows) for rows in split.split_rows(dataset, params)]
    return _result(params, run_id, version, sides, metrics)


def _result(
    params: TrainParams, run_id: str, version: int, sides: Sequence[Dataset], metrics: Mapping[str, float]
) -> TrainResult:
    training, holdout = sides
    return TrainResult(
        run_id,
        runs.store_address(),
        params.name,
        version,
        params.stage,
        len(training.labels),
        len(holdout.labels),
        dict(metrics),
        tuple(holdout.features.iloc[0]),
        params.task,
        params.metric,
    )


def _write_evidence(folder: Path, fitted: FittedModel) -> None:
    params, dataset, holdout, outcomes = fitted.params, fitted.dataset, fitted.holdout, fitted.outcomes
    folder.mkdir()
    evidence.write_evaluation(folder, evidence.Evaluation(params.task, params.metric))
    evidence.write_holdout(folder, holdout.features, pd.Series(holdout.label_values(), name=holdout.target))
    evidence.write_training_rows(folder, dataset.features, fitted.training.features)
    few = slice(0, EXAMPLE_ROWS)
    probabilities = None if outcomes.probabilities is None else outcomes.probabilities[few]
    evidence.write_recorded_predictions(
        folder, evidence.RecordedPredictions(holdout.features.iloc[few], fitted.predicted[few], probabilities)
    )
    dates = kinds_of_columns(dataset.features, params.dtypes)[DATES]
    times = [name for name in dataset.features if name in {*dates, params.time}]
    features, target = fitted.training.features, dataset.target
    write_baseline(folder, make_baseline(features, target, outcomes, params.metric, times))


@contextmanager
def _log_warnings() -> Iterator[None]:
    """Log each different warning of the estimators once, as one line."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for text in dict.fromkeys(first_line(w.message).rstrip(":") for w in caught):
        _log.warning("%s", text)
