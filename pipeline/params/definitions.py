"""The parameters of training, sweep and monitoring: one class for each.

Each field states its type with the bounds, its default, and its help text. The command line, MLproject,
the configuration file and the checks are built from these fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from pipeline.errors import InvalidParameter
from pipeline.estimators import ESTIMATORS
from pipeline.params.table import TableParams, check_address
from pipeline.params.types import (
    AUTO,
    Boolean,
    ClassWeights,
    Duration,
    Folds,
    HoldoutSize,
    Integer,
    JsonObject,
    ModelName,
    OrNone,
    Params,
    SignificanceLevel,
    StageName,
    Text,
)

CANDIDATE_STAGE = "staging"  # the default stage of a newly trained version
ALL_MODELS = "all"  # value of `model` in a sweep: try all estimators

_METRIC = "auto, the name of a metric such as rmse, recall:CLASS, precision:CLASS, or module:function"
_ITERATED = [name for name, spec in ESTIMATORS.items() if any(n.endswith("max_iter") for n in spec.takes)]
_LONG_TIME = "a time such as 12h or 7d, up to a century"


def _model_or(other: str) -> AfterValidator:
    """Return the check of the name of an estimator, or of another name; each check reads the table."""

    def check(name: str) -> str:
        if name != other and name not in ESTIMATORS:
            raise ValueError
        return name

    return AfterValidator(check)


_MODELS = f"one of {', '.join(ESTIMATORS)}"
_Count = Annotated[Integer, Field(ge=1)]
_Limit = Annotated[Duration, Field(ge=timedelta.resolution)]


class TrainParams(TableParams):
    """The parameters of a training."""

    task: Literal["auto", "classification", "regression"] = "auto"
    """Predict a class or a number; auto decides by the label column."""
    metric: Annotated[str, _METRIC] = Field(AUTO, min_length=1)
    """The metric to decide by; auto is accuracy, or rmse for a regression."""
    model: Annotated[str, _model_or(AUTO), f"auto or {_MODELS}"] = AUTO
    """The estimator; auto is logistic_regression, or ridge for a regression."""
    model_params: JsonObject = Field({})
    """Arguments of the estimator."""
    max_iter: Integer = Field(
        200,
        ge=1,
        le=1_000_000,
        description=f"The largest number of iterations; used by {', '.join(_ITERATED)}.",
    )
    early_stopping: Annotated[
        _Count | None, OrNone, "a whole number of iterations from 1, or none to train max_iter iterations"
    ] = Field(
        20,
        description="Stop after so many iterations without a lower loss on a tenth of the training rows; "
        f"used by {', '.join(name for name, spec in ESTIMATORS.items() if spec.stops_early)}.",
    )
    test_size: HoldoutSize = 0.2
    """The size of the holdout, as a fraction or a number of rows."""
    random_state: Integer = Field(42, ge=0, le=2**32 - 1)
    """The seed of the split, the subset and the estimator."""
    split: Literal["stratified", "hash"] = "stratified"
    """How to choose the holdout; hash keeps each row on its side when the table grows."""
    cv: Folds = "5"
    """The folds of the cross-validation, and how often to repeat it with other folds."""
    scale: Annotated[Literal["auto", "true", "false"], Text] = "auto"
    """Scale the numbers; auto does it for models that need it, if the columns differ in magnitude."""
    class_weight: ClassWeights = None
    """The weight of each class; balanced gives all classes the same total weight."""
    calibrate: Annotated[Literal["auto", "none", "sigmoid", "isotonic"], Text] = "auto"
    """Calibrate the probabilities on folds; auto gives probabilities to a model that has none."""
    threshold: Annotated[str | None, OrNone, "the name of a metric of classification, or none"] = None
    """Predict the second of two classes from the probability that is best by this metric on folds."""
    subset_size: Annotated[_Count | None, OrNone, "a whole number of rows from 1, or none for all"] = None
    """Use only so many rows of the table."""
    plots: Boolean = True
    """Draw and log the plots."""
    name: ModelName = Field(AUTO, validate_default=True)
    """The registered model; auto is iris for the table iris, and your own table needs a name."""
    stage: StageName = CANDIDATE_STAGE
    """The stage of the new version."""

    @field_validator("name")
    @classmethod
    def _name_iris(cls, name: str, given: ValidationInfo) -> str:
        """Replace `auto` by the name of the bundled table."""
        return "iris" if name == AUTO and given.data.get("data") == "iris" else name

    @model_validator(mode="after")
    def _check_split(self) -> TrainParams:
        """Check that the parameters of the split are consistent."""
        if self.data == "iris" and self.task == "regression":
            raise InvalidParameter("task", self.task, "needs data=FILE; the labels of iris are classes")
        if self.split == "hash" and isinstance(self.test_size, int):
            reason = "split=hash needs a fraction: with a number, rows change sides when the table grows"
            raise InvalidParameter("test_size", self.test_size, reason)
        if self.time is not None and self.split == "hash":
            raise InvalidParameter("split", "hash", f"time={self.time} already chooses the held-out rows")
        if self.time is not None and "x" in self.cv:
            raise InvalidParameter("cv", self.cv, "time gives the same folds in each repeat: leave it out")
        if self.name == AUTO:
            raise InvalidParameter("name", AUTO, f"data={self.data} needs a model of its own: set name=MODEL")
        return self


class SweepParams(TrainParams):
    """The parameters of a sweep: those of a training, and how to search for its model and arguments."""

    model: Annotated[str, _model_or(ALL_MODELS), f"{_MODELS}, or all"] = ALL_MODELS
    """The models to try."""
    model_params: JsonObject = Field({})
    """Arguments of the estimator that are the same in each trial."""
    n_trials: Integer = Field(20, ge=1, le=100_000)
    """The number of trials."""
    sampler: Literal["random", "tpe", "qmc", "grid"] = "random"
    """How parameters are chosen; all but tpe depend on random_state alone."""
    n_jobs: Integer = Field(1, ge=1, le=10_000)
    """Trials at the same time."""
    engine: Literal["local", "spark"] = "local"
    """Where: in processes here, or on Spark."""
    trial_timeout: Annotated[_Limit | None, OrNone, "a time such as 30s or 5min, or none"] = None
    """After that time a trial is killed and counts as failed."""
    timeout: Annotated[_Limit | None, OrNone, "a time such as 30min or 2h, or none"] = None
    """After that time no trial goes on, and the best so far is trained."""

    def train_params(self, model: str, model_params: Mapping[str, Any]) -> TrainParams:
        """Return the parameters of a training of this sweep's table with one model."""
        own = {name: getattr(self, name) for name in TrainParams.model_fields}
        return TrainParams(**own | {"model": model, "model_params": model_params})


class MonitorParams(Params):
    """The parameters of a monitoring run, and the actions that it may take."""

    name: ModelName = "iris"
    """The registered model."""
    stage: StageName = "production"
    """The monitored stage."""
    current: Annotated[str | None, OrNone, "a folder of the prediction log, or a .csv or .parquet file"] = (
        None
    )
    """The production data; required."""
    labels: Annotated[str | None, OrNone, "a .csv or .parquet file, or none"] = None
    """The correct labels: a table with the columns request_id, label and optionally row."""
    since: Annotated[Duration | None, OrNone, f"{_LONG_TIME}, or none for all"] = None
    """Read only rows that were predicted within this time before now."""
    min_rows: Annotated[Integer, "a whole number of rows from 20"] = Field(200, ge=20)
    """The smallest number of rows to test."""
    alpha: SignificanceLevel = 0.01
    """The largest accepted probability of a false alarm."""
    retrain: Annotated[str | None, OrNone, "a table as in data, or none"] = None
    """On drift, train a candidate on this table and run the gates on it."""
    promote: Boolean = False
    """Promote the retrained candidate if it passes the gates."""
    rollback: Boolean = False
    """Roll back if the live accuracy is significantly lower."""
    cooldown: Annotated[Duration, _LONG_TIME] = timedelta(days=1)
    """The shortest time between two retrainings."""

    @model_validator(mode="after")
    def _check_actions(self) -> MonitorParams:
        """Check that `current` is given, and that the actions are consistent."""
        if self.current is None:
            reason = "the production data is required: a folder of the log or a file"
            raise InvalidParameter("current", "none", reason)
        if self.promote and self.retrain is None:
            raise InvalidParameter("promote", "true", "needs retrain=TABLE")
        if self.rollback and self.labels is None:
            raise InvalidParameter("rollback", "true", "needs labels=FILE, to compute the live accuracy")
        check_address("retrain", self.retrain or "")
        if self.retrain is not None and self.stage == CANDIDATE_STAGE:
            watched = f"{CANDIDATE_STAGE}, the monitored stage, without any gate"
            reason = f"the candidate would replace the version in {watched}: monitor another stage"
            raise InvalidParameter("retrain", self.retrain, reason)
        return self
