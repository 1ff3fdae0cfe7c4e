"""The parameters of training, sweep and monitoring: one frozen dataclass for each.

Each field states its default, a function that parses and checks it, its bounds, and its help text. The
command line and the checks are built from these fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any

from pipeline.errors import InvalidParameter
from pipeline.estimators import ESTIMATORS, estimators_that_take
from pipeline.params.fields import (
    AUTO,
    BOOLEAN,
    CLASS_WEIGHTS,
    FOLDS,
    HOLDOUT_SIZE,
    JSON_OBJECT,
    SIGNIFICANCE_LEVEL,
    CheckedParams,
    Kind,
    choice,
    duration,
    integer,
    nonempty,
    optional,
    param,
)
from pipeline.params.table import TableParams
from registry_tools.refs import model_name, stage_name
from registry_tools.task import CLASSIFICATION, REGRESSION

SAMPLERS = ("random", "tpe", "qmc", "grid")
CANDIDATE_STAGE = "staging"  # the default stage of a newly trained version
ALL_MODELS = "all"  # value of `model` in a sweep: try all estimators

_STOPPING = "used by " + ", ".join(name for name, spec in ESTIMATORS.items() if spec.stops_early)
_METRIC = "auto, the name of a metric such as rmse, recall:CLASS, precision:CLASS, or module:function"
_LONG_TIME = "a time such as 12h or 7d, up to a century"
_NAME = Kind(model_name, "the name of a registered model")
_TABLE = optional(Kind(str, "a .csv or .parquet file"))


def _model(other: str, bounds: str) -> Kind:
    """Return the kind of the name of an estimator, or of another name; each parse reads the table."""
    return Kind(str, bounds.format(", ".join(ESTIMATORS)), lambda name: name == other or name in ESTIMATORS)


@dataclass(frozen=True)
class TrainParams(TableParams):
    """The parameters of a training."""

    task: str = param(
        AUTO,
        choice((AUTO, CLASSIFICATION, REGRESSION), f"auto, {CLASSIFICATION} or {REGRESSION}"),
        "Predict a class or a number; auto decides by the label column.",
    )
    metric: str = param(
        AUTO, nonempty(_METRIC), "The metric to decide by; auto is accuracy, or rmse for a regression."
    )
    model: str = param(
        AUTO,
        _model(AUTO, "auto or one of {}"),
        "The estimator; auto is logistic_regression, or ridge for a regression.",
    )
    model_params: Mapping[str, Any] = param({}, JSON_OBJECT, "Arguments of the estimator.")
    max_iter: int = param(
        200,
        integer(1, 1_000_000),
        f"The largest number of iterations; used by {estimators_that_take('max_iter')}.",
    )
    early_stopping: int | None = param(
        20,
        optional(integer(1), "a whole number of iterations from 1, or none to train max_iter iterations"),
        f"Stop after so many iterations without a lower loss on a tenth of the training rows; {_STOPPING}.",
    )
    test_size: float | int = param(
        0.2, HOLDOUT_SIZE, "The size of the holdout, as a fraction or a number of rows."
    )
    random_state: int = param(
        42, integer(0, 2**32 - 1), "The seed of the split, the subset and the estimator."
    )
    split: str = param(
        "stratified",
        choice(("stratified", "hash"), "stratified or hash"),
        "How to choose the holdout; hash keeps each row on its side when the table grows.",
    )
    cv: str = param(
        "5", FOLDS, "The folds of the cross-validation, and how often to repeat it with other folds."
    )
    scale: str = param(
        "auto",
        choice(("auto", "true", "false"), "auto, true or false"),
        "Scale the numbers; auto does it for models that need it, if the columns differ in magnitude.",
    )
    class_weight: str | Mapping[str, Any] | None = param(
        None,
        optional(CLASS_WEIGHTS),
        "The weight of each class; balanced gives all classes the same total weight.",
    )
    calibrate: str = param(
        "auto",
        choice(("auto", "none", "sigmoid", "isotonic")),
        "Calibrate the probabilities on folds; auto gives probabilities to a model that has none.",
    )
    threshold: str | None = param(
        None,
        optional(Kind(str, "the name of a metric of classification")),
        "Predict the second of two classes from the probability that is best by this metric on folds.",
    )
    subset_size: int | None = param(
        None,
        optional(integer(1), "a whole number of rows from 1, or none for all"),
        "Use only so many rows of the table.",
    )
    plots: bool = param(True, BOOLEAN, "Draw and log the plots.")
    name: str = param("iris", _NAME, "The registered model.")
    stage: str = param(
        CANDIDATE_STAGE, Kind(stage_name, "a legal alias, such as staging"), "The stage of the new version."
    )

    def __post_init__(self) -> None:
        """Check the bounds of each parameter, and that the parameters are consistent.

        Raises
        ------
        InvalidParameter
            If a parameter is out of bounds, or two parameters contradict each other.
        """
        super().__post_init__()
        if self.data == "iris" and self.task == REGRESSION:
            raise InvalidParameter("task", self.task, "needs data=FILE; the labels of iris are classes")
        if self.split == "hash" and isinstance(self.test_size, int):
            reason = "split=hash needs a fraction: with a number, rows change sides when the table grows"
            raise InvalidParameter("test_size", self.test_size, reason)
        if self.time is not None and self.split == "hash":
            raise InvalidParameter("split", "hash", f"time={self.time} already chooses the held-out rows")
        if self.time is not None and "x" in self.cv:
            raise InvalidParameter("cv", self.cv, "time gives the same folds in each repeat: leave it out")


@dataclass(frozen=True)
class SweepParams(TrainParams):
    """The parameters of a sweep: those of a training, and how to search for its model and arguments."""

    model: str = param(ALL_MODELS, _model(ALL_MODELS, "one of {}, or all"), "What is tried.")
    model_params: Mapping[str, Any] = param(
        {}, JSON_OBJECT, "Arguments of the estimator that are the same in each trial."
    )
    n_trials: int = param(20, integer(1, 100_000), "How many are tried.")
    sampler: str = param(
        "random", choice(SAMPLERS), "How parameters are chosen; all but tpe depend on random_state alone."
    )
    n_jobs: int = param(1, integer(1, 10_000), "Trials at the same time.")
    engine: str = param(
        "local", choice(("local", "spark"), "local or spark"), "Where: in processes here, or on Spark."
    )
    trial_timeout: timedelta | None = param(
        None,
        optional(duration("a time such as 30s or 5min", timedelta.resolution)),
        "After that time a trial is killed and counts as failed.",
    )
    timeout: timedelta | None = param(
        None,
        optional(duration("a time such as 30min or 2h", timedelta.resolution)),
        "After that time no trial goes on, and the best so far is trained.",
    )

    def train_params(self, model: str, model_params: Mapping[str, Any]) -> TrainParams:
        """Return the parameters of a training of this sweep's table with one model."""
        own = {spec.name: getattr(self, spec.name) for spec in fields(TrainParams)}
        return TrainParams(**own | {"model": model, "model_params": model_params})


@dataclass(frozen=True)
class MonitorParams(CheckedParams):
    """The parameters of a monitoring run, and the actions that it may take."""

    name: str = param("iris", _NAME, "The registered model.")
    stage: str = param(
        "production", Kind(stage_name, "a legal alias, such as production"), "The monitored stage."
    )
    current: str | None = param(
        None,
        optional(Kind(str, ""), "a folder of the prediction log, or a .csv or .parquet file"),
        "The production data; required.",
    )
    labels: str | None = param(
        None, _TABLE, "The correct labels: a table with the columns request_id, label and optionally row."
    )
    since: timedelta | None = param(
        None,
        optional(duration(_LONG_TIME), f"{_LONG_TIME}, or none for all"),
        "Read only rows that were predicted within this time before now.",
    )
    min_rows: int = param(
        200, integer(20, bounds="a whole number of rows from 20"), "The smallest number of rows to test."
    )
    alpha: float = param(0.01, SIGNIFICANCE_LEVEL, "The largest accepted probability of a false alarm.")
    retrain: str | None = param(
        None, _TABLE, "On drift, train a candidate on this table and run the gates on it."
    )
    promote: bool = param(False, BOOLEAN, "Promote the retrained candidate if it passes the gates.")
    rollback: bool = param(False, BOOLEAN, "Roll back if the live accuracy is significantly lower.")
    cooldown: timedelta = param(
        timedelta(days=1), duration(_LONG_TIME), "The shortest time between two retrainings."
    )

    def __post_init__(self) -> None:
        """Check the bounds of each parameter, and that the parameters are consistent.

        Raises
        ------
        InvalidParameter
            If a parameter is out of bounds, `current` is missing, or two parameters contradict each other.
        """
        super().__post_init__()
        if self.current is None:
            reason = "the production data is required: a folder of the log or a file"
            raise InvalidParameter("current", "none", reason)
        if self.promote and self.retrain is None:
            raise InvalidParameter("promote", "true", "needs retrain=TABLE")
        if self.rollback and self.labels is None:
            raise InvalidParameter("rollback", "true", "needs labels=FILE, to compute the live accuracy")
        if self.retrain is not None and self.stage == CANDIDATE_STAGE:
            watched = f"{CANDIDATE_STAGE}, the monitored stage, without any gate"
            reason = f"the candidate would replace the version in {watched}: monitor another stage"
            raise InvalidParameter("retrain", self.retrain, reason)
