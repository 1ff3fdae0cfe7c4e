"""The estimators that you can train, as one table: add an entry to `ESTIMATORS` to add an estimator."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from registry_tools.task import CLASSIFICATION, REGRESSION


@dataclass(frozen=True)
class Range:
    """A range of values from which a sweep draws an argument; both ends are included."""

    low: float
    high: float
    log: bool = False  # draw the logarithm uniformly, so that each order of magnitude is equally likely
    is_integer: bool = False


SearchSpace = Mapping[str, Range | tuple[Any, ...]]  # by argument; a tuple lists the values to choose from


@dataclass(frozen=True)
class EstimatorSpec:
    """How to create one estimator, and which arguments it gets.

    The classes are given as text, so that the command line lists the models without importing
    scikit-learn. Both are `module:name` of a class or function, which is called without arguments.
    """

    factory: str = ""  # of the classifier; empty if there is none
    takes: tuple[str, ...] = ("random_state",)  # parameters of `TrainParams`; in a Pipeline, step__name
    renamed: Mapping[str, str] = field(default_factory=dict)  # by entry of `takes`: the name of its argument
    fixed: Mapping[str, Any] = field(default_factory=dict)  # arguments with other values than by default
    space: SearchSpace = field(default_factory=dict)  # the arguments that a sweep varies
    regressor: str = ""  # the factory of the regressor; empty if there is none
    needs_scaling: bool = False  # for columns that differ in magnitude
    scales_target: bool = False  # a regressor that needs labels near 0 with a standard deviation near 1
    stops_early: bool = False  # of XGBoost or LightGBM: their losses on other rows decide on the iterations

    def package_of(self, task: str) -> str:
        """Return the top-level package of the estimator for a task."""
        return self.factory_of(task).partition(":")[0].partition(".")[0]

    def is_installed(self, task: str) -> bool:
        """Return whether the package of the estimator is installed."""
        return importlib.util.find_spec(self.package_of(task)) is not None

    def factory_of(self, task: str) -> str:
        """Return the factory for a task; empty if the estimator cannot do it."""
        return self.regressor if task == REGRESSION else self.factory


# One thread, because folds and trials run in parallel, and because sums depend on the number of threads.
_BOOSTING: Mapping[str, Any] = {
    "takes": ("max_iter", "random_state"),
    "renamed": {"max_iter": "n_estimators"},
    "stops_early": True,
}
_BOOSTING_SPACE: SearchSpace = {
    "learning_rate": Range(0.01, 0.5, log=True),
    "subsample": Range(0.5, 1),
    "colsample_bytree": Range(0.5, 1),
    "reg_lambda": Range(1e-6, 10, log=True),
}

ESTIMATORS: Mapping[str, EstimatorSpec] = {
    "logistic_regression": EstimatorSpec(
        "sklearn.linear_model:LogisticRegression",
        takes=("max_iter", "random_state"),
        needs_scaling=True,
        space={"C": Range(1e-3, 1e3, log=True), "class_weight": (None, "balanced")},
    ),
    "random_forest": EstimatorSpec(
        "sklearn.ensemble:RandomForestClassifier",
        regressor="sklearn.ensemble:RandomForestRegressor",
        space={
            "n_estimators": (50, 100, 200),
            "max_depth": (None, 4, 8, 16),
            "max_features": ("sqrt", None),
            "min_samples_leaf": Range(1, 10, is_integer=True),
        },
    ),
    "hist_gradient_boosting": EstimatorSpec(
        "sklearn.ensemble:HistGradientBoostingClassifier",
        regressor="sklearn.ensemble:HistGradientBoostingRegressor",
        takes=("max_iter", "random_state"),
        space={
            "learning_rate": Range(0.01, 0.5, log=True),
            "max_leaf_nodes": Range(7, 63, is_integer=True),
            "min_samples_leaf": Range(5, 50, is_integer=True),
            "l2_regularization": Range(1e-6, 10, log=True),
        },
    ),
    "xgboost": EstimatorSpec(
        "xgboost:XGBClassifier",
        regressor="xgboost:XGBRegressor",
        # The defaults of XGBoost, which it shows as None.
        fixed={"n_jobs": 1, "verbosity": 0, "learning_rate": 0.3, "max_depth": 6}
        | {"subsample": 1.0, "colsample_bytree": 1.0, "reg_lambda": 1.0},
        space={**_BOOSTING_SPACE, "max_depth": Range(2, 10, is_integer=True)},
        **_BOOSTING,
    ),
    "lightgbm": EstimatorSpec(
        "lightgbm:LGBMClassifier",
        regressor="lightgbm:LGBMRegressor",
        # Without `force_row_wise`, LightGBM chooses its algorithm by a measured time.
        fixed={
            "n_jobs": 1,
            "verbose": -1,
            "subsample_freq": 1,
            "deterministic": True,
            "force_row_wise": True,
        },
        space={**_BOOSTING_SPACE, "num_leaves": Range(7, 63, is_integer=True)},
        **_BOOSTING,
    ),
    "svc": EstimatorSpec(
        "sklearn.svm:SVC",
        needs_scaling=True,
        space={"C": Range(1e-2, 1e3, log=True), "gamma": Range(1e-4, 10, log=True)},
    ),
    "knn": EstimatorSpec(
        "sklearn.neighbors:KNeighborsClassifier",
        regressor="sklearn.neighbors:KNeighborsRegressor",
        takes=(),
        needs_scaling=True,
        space={"n_neighbors": Range(1, 30, is_integer=True), "weights": ("uniform", "distance")},
    ),
    "linear": EstimatorSpec(
        regressor="sklearn.linear_model:LinearRegression",
        takes=(),
        needs_scaling=True,
        space={"fit_intercept": (True, False), "positive": (False, True)},
    ),
    "ridge": EstimatorSpec(
        regressor="sklearn.linear_model:Ridge",
        needs_scaling=True,
        space={"alpha": Range(1e-3, 1e4, log=True)},
    ),
    "svr": EstimatorSpec(
        regressor="sklearn.svm:SVR",
        takes=(),
        space={
            "C": Range(1e-2, 1e3, log=True),
            "gamma": Range(1e-4, 10, log=True),
            "epsilon": Range(1e-3, 1, log=True),
        },
        needs_scaling=True,
        scales_target=True,
    ),
}
DEFAULT_MODELS = {CLASSIFICATION: "logistic_regression", REGRESSION: "ridge"}


def models_of(task: str) -> list[str]:
    """Return the names of the models that can do a task."""
    return [name for name, spec in ESTIMATORS.items() if spec.factory_of(task)]
