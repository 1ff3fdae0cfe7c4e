"""The parameters of the steps: types, defaults and bounds, in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from pathlib import Path
from typing import Any

from pipeline.errors import InvalidParameter
from pipeline.estimators import ESTIMATORS, estimators_that_take
from pipeline.params.fields import (
    CheckedParams,
    as_text,
    boolean,
    choice,
    column_name,
    column_names,
    duration,
    holdout_size,
    integer,
    json_object,
    nonempty,
    optional,
    param,
    positive_duration,
    significance_level,
)
from registry_tools.refs import model_name, stage_name

SPLITS = ("stratified", "hash")
ENGINES = ("local", "spark")
SAMPLERS = ("random", "tpe", "qmc", "grid")
CANDIDATE_STAGE = "staging"  # the stage where a training puts its version
ALL_MODELS = "all"  # instead of a model: each of them


@dataclass(frozen=True)
class TrainParams(CheckedParams):
    """What a training run depends on."""

    data: str = param("iris", nonempty, "'iris', or the path or URL of a .csv or .parquet file", "The table.")
    target: str | None = param(
        None, column_name, "the name of a column", "The label column; a table needs it."
    )
    drop: tuple[str, ...] = param(
        (),
        column_names,
        "different names of columns between commas, or none",
        "Columns of a table to leave out, such as what only names a row.",
    )
    model: str = param(
        "logistic_regression", choice(tuple(ESTIMATORS)), f"one of {', '.join(ESTIMATORS)}", "The estimator."
    )
    model_params: Mapping[str, Any] = param(
        {}, json_object, "a JSON object, such as '{\"C\": 0.5}'", "Arguments of the estimator."
    )
    max_iter: int = param(
        200,
        integer(1, 1_000_000),
        "a whole number from 1 to 1000000",
        f"Iterations at most, of {estimators_that_take('max_iter')}.",
    )
    test_size: float | int = param(
        0.2,
        holdout_size,
        "a fraction above 0 and below 1, or a whole number of rows from 1",
        "Rows held out: a fraction or a number.",
    )
    random_state: int = param(
        42,
        integer(0, 2**32 - 1),
        "a whole number from 0 to 4294967295",
        "The seed of split, subset and estimator.",
    )
    split: str = param(
        "stratified",
        choice(SPLITS),
        "stratified or hash",
        "How rows are held out; hash keeps each row on its side while the table grows.",
    )
    subset_size: int | None = param(
        None,
        optional(integer(1, 2**63 - 1)),
        "a whole number of rows from 1, or none for all",
        "Train on that many rows only.",
    )
    plots: bool = param(True, boolean, "true or false", "Draw and log the plots.")
    name: str = param("iris", model_name, "the name of a registered model", "The registered model.")
    stage: str = param(
        CANDIDATE_STAGE, stage_name, "a legal alias, such as staging", "The stage that it gets."
    )

    def __post_init__(self) -> None:
        """Check the bounds of each value and that they fit together.

        Raises
        ------
        InvalidParameter
            If one is out of its bounds, or two contradict each other.
        """
        super().__post_init__()
        if self.data != "iris" and self.target is None:
            raise InvalidParameter(
                "target", "none", f"a table needs the name of its label column (data={self.data})"
            )
        if self.data == "iris" and self.target is not None:
            raise InvalidParameter("target", self.target, "belongs to a table; iris brings its own label")
        if self.data == "iris" and self.drop:
            raise InvalidParameter("drop", as_text(self.drop), "belongs to a table, not to iris")
        if self.target in self.drop:
            raise InvalidParameter("drop", as_text(self.drop), "the label column cannot be left out")
        from registry_tools.data.input_files import without_secrets  # with pyarrow, which takes time

        address = without_secrets(self.data)
        if "://" in self.data and address != self.data.partition("?")[0]:
            raise InvalidParameter("data", address, "must hold no key: the run records it; see production.md")
        if self.data != "iris" and Path(address).suffix.lower() not in {".csv", ".parquet", ".pq"}:
            raise InvalidParameter("data", address, "must be " + _bounds_of("data"))
        if self.split == "hash" and isinstance(self.test_size, int):
            raise InvalidParameter(
                "test_size",
                self.test_size,
                "split=hash needs a fraction: a number of rows would move rows as the table grows",
            )


@dataclass(frozen=True)
class SweepParams(TrainParams):
    """What a sweep depends on: a training's parameters, and how others are tried for it."""

    model: str = param(
        "all", choice((*ESTIMATORS, ALL_MODELS)), f"one of {', '.join(ESTIMATORS)}, or all", "What is tried."
    )
    model_params: Mapping[str, Any] = param(
        {},
        json_object,
        "a JSON object, such as '{\"C\": 0.5}'",
        "Arguments of the estimator that are the same in each trial.",
    )
    n_trials: int = param(20, integer(1, 100_000), "a whole number from 1 to 100000", "How many are tried.")
    sampler: str = param(
        "random",
        choice(SAMPLERS),
        f"one of {', '.join(SAMPLERS)}",
        "How parameters are chosen; all but tpe depend on random_state alone.",
    )
    n_jobs: int = param(1, integer(1, 10_000), "a whole number from 1 to 10000", "Trials at the same time.")
    engine: str = param("local", choice(ENGINES), "local or spark", "Where: in processes here, or on Spark.")
    trial_timeout: timedelta | None = param(
        None,
        optional(positive_duration),
        "a time such as 30s or 5min, or none",
        "After that time a trial is killed and counts as failed.",
    )
    timeout: timedelta | None = param(
        None,
        optional(positive_duration),
        "a time such as 30min or 2h, or none",
        "After that time no trial goes on, and the best so far is trained.",
    )

    def train_params(self, model: str, model_params: Mapping[str, Any]) -> TrainParams:
        """Return the parameters of a training of this sweep's table with one model."""
        own = {spec.name: getattr(self, spec.name) for spec in fields(TrainParams)}
        return TrainParams(**own | {"model": model, "model_params": model_params})


@dataclass(frozen=True)
class MonitorParams(CheckedParams):
    """What a monitoring run depends on, and the actions that it may take."""

    name: str = param("iris", model_name, "the name of a registered model", "The registered model.")
    stage: str = param("production", stage_name, "a legal alias, such as production", "The monitored stage.")
    current: str | None = param(
        None,
        optional(nonempty),
        "a folder of the prediction log, or a .csv or .parquet file",
        "The production data; has to be given.",
    )
    labels: str | None = param(
        None,
        optional(str),
        "a .csv or .parquet file, or none",
        "The correct labels, by request_id, perhaps row, and label.",
    )
    since: timedelta | None = param(
        None,
        optional(duration),
        "a time such as 12h or 7d, up to a century, or none for all",
        "How far back the log is read.",
    )
    min_rows: int = param(
        200, integer(20, 2**63 - 1), "a whole number of rows from 20", "With fewer rows nothing is tested."
    )
    alpha: float = param(
        0.01,
        significance_level,
        "a number from 1e-9 to 0.5",
        "How often at most drift is reported where there is none.",
    )
    retrain: str | None = param(
        None,
        optional(str),
        "a .csv or .parquet file, or none",
        "On drift, train a candidate on that table and have the gates judge it.",
    )
    promote: bool = param(
        False, boolean, "true or false", "Promote the candidate if the gates let it through."
    )
    rollback: bool = param(False, boolean, "true or false", "Roll back if the live accuracy has fallen.")
    cooldown: timedelta = param(
        timedelta(days=1),
        duration,
        "a time such as 12h or 7d, up to a century",
        "After a retraining, how long no other is started.",
    )

    def __post_init__(self) -> None:
        """Check the bounds of each value, and that the production data is given.

        Raises
        ------
        InvalidParameter
            If one is out of its bounds, or `current` is missing.
        """
        super().__post_init__()
        if self.current is None:
            raise InvalidParameter(
                "current", "none", "the production data has to be given: a folder of the log or a file"
            )
        if self.promote and self.retrain is None:
            raise InvalidParameter("promote", "true", "belongs to retrain=TABLE")
        if self.rollback and self.labels is None:
            raise InvalidParameter("rollback", "true", "the live accuracy takes labels=FILE to be known")
        if self.retrain is not None and self.stage == CANDIDATE_STAGE:
            raise InvalidParameter(
                "retrain",
                self.retrain,
                f"a candidate is put into {CANDIDATE_STAGE}, which is the monitored stage: no gate "
                "would stand between",
            )


def _bounds_of(name: str) -> str:
    return next(spec.metadata["bounds"] for spec in fields(TrainParams) if spec.name == name)
