"""The parameters that a run logs, its table of predictions, and the view of all runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from pipeline.data.dataset import Dataset
from pipeline.estimators import ESTIMATORS
from pipeline.params.definitions import TrainParams
from pipeline.params.types import as_text
from pipeline.training.model_pipeline import effective_arguments
from pipeline.training.scoring import mean_key, metric_of
from registry_tools.files.table_source import TableSource
from registry_tools.mlflow_store import experiments
from registry_tools.stats.metric import Outcomes, metric_key
from registry_tools.task import REGRESSION

_MOST_SHOWN, _MOST_FEATURES = 1000, 50  # rows and features in the table of predictions
_OF_CLASSES = {"class_weight", "calibrate", "threshold"}


def used_params(params: TrainParams) -> dict[str, str]:
    """Return the parameters as text, without those that the model or the task ignores."""
    ignored = _OF_CLASSES if params.task == REGRESSION else set()
    if params.model in ESTIMATORS and not any(n.endswith("max_iter") for n in ESTIMATORS[params.model].takes):
        ignored = ignored | {"max_iter"}
    if params.model in ESTIMATORS and not ESTIMATORS[params.model].stops_early:
        ignored = ignored | {"early_stopping"}
    if params.time is not None:
        ignored = ignored | {"split"}
    if params.source() == TableSource(params.data, connection=params.connection):
        ignored = ignored | {"separator", "decimal", "encoding"}
    return {name: text for name, text in params.as_text().items() if name not in ignored}


def argument_texts(model: str, arguments: Mapping[str, Any]) -> dict[str, str]:
    """Return a model and its arguments as a run logs them: `estimator`, `model.C`.

    A prefix keeps an argument such as `class_weight` apart from the parameter of the training, and with a
    dot MLflow's filters take the name without backticks.
    """
    return {"estimator": model, **{f"model.{name}": as_text(value) for name, value in arguments.items()}}


def logged_params(params: TrainParams) -> dict[str, str]:
    """Return the parameters of a training, with its model and the effective arguments of the estimator."""
    return {**used_params(params), **argument_texts(params.model, effective_arguments(params))}


def view_of(params: TrainParams) -> dict[str, str]:
    """Return the tags of a view of runs, the best by the metric of the training first."""
    metric = metric_of(params)
    key, other = metric_key(metric.name), "r2" if metric.task == REGRESSION else "log_loss"
    names = dict.fromkeys([key, mean_key(metric.name), f"train/{key}", other])
    columns = [*(f"metrics.`{name}`" for name in names), "params.`estimator`", "attributes.`Models`"]
    return experiments.view("best", f"metrics.`{key}`", columns, metric.less_is_better)


def predictions_table(holdout: Dataset, outcomes: Outcomes) -> pd.DataFrame:
    """Return label, prediction and its probability of the first 1,000 rows, and up to 50 features."""
    table = pd.DataFrame({"label": outcomes.labels, "prediction": outcomes.predicted})
    if outcomes.probabilities is not None:
        codes = pd.Index(outcomes.classes).get_indexer(outcomes.predicted)
        table["probability"] = outcomes.probabilities[np.arange(len(codes)), codes]
    features = holdout.features.iloc[:, :_MOST_FEATURES].drop(columns=list(table), errors="ignore")
    return pd.concat([table, features], axis=1).head(_MOST_SHOWN)
