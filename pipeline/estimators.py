"""The estimators that can be trained, each in an entry of one table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Range:
    """The values of an argument that a sweep draws from, both ends included."""

    low: float
    high: float
    log: bool = False  # every order of magnitude is as likely as another
    is_integer: bool = False


SearchSpace = Mapping[str, Range | tuple[Any, ...]]  # by argument; a tuple is a choice


@dataclass(frozen=True)
class EstimatorSpec:
    """Where an estimator comes from, and which parameters of a training it is given.

    Text, not the class itself: the command line names the models without importing scikit-learn.
    """

    factory: str  # module:name of a class or function; called without arguments
    takes: tuple[str, ...] = ("random_state",)  # of `TrainParams`; in a Pipeline, step__name
    space: SearchSpace = field(default_factory=dict)  # what a sweep varies; without one it has none


ESTIMATORS: Mapping[str, EstimatorSpec] = {
    "logistic_regression": EstimatorSpec(
        "sklearn.linear_model:LogisticRegression",
        takes=("max_iter", "random_state"),
        space={"C": Range(1e-3, 1e3, log=True), "class_weight": (None, "balanced")},
    ),
    "random_forest": EstimatorSpec(
        "sklearn.ensemble:RandomForestClassifier",
        space={
            "n_estimators": (50, 100, 200),
            "max_depth": (None, 4, 8, 16),
            "max_features": ("sqrt", None),
            "min_samples_leaf": Range(1, 10, is_integer=True),
        },
    ),
    "hist_gradient_boosting": EstimatorSpec(
        "sklearn.ensemble:HistGradientBoostingClassifier",
        takes=("max_iter", "random_state"),
        space={
            "learning_rate": Range(0.01, 0.5, log=True),
            "max_leaf_nodes": Range(7, 63, is_integer=True),
            "min_samples_leaf": Range(5, 50, is_integer=True),
            "l2_regularization": Range(1e-6, 10, log=True),
        },
    ),
    "svc": EstimatorSpec(
        "sklearn.svm:SVC", space={"C": Range(1e-2, 1e3, log=True), "gamma": Range(1e-4, 10, log=True)}
    ),
    "knn": EstimatorSpec(
        "sklearn.neighbors:KNeighborsClassifier",
        takes=(),
        space={"n_neighbors": Range(1, 30, is_integer=True), "weights": ("uniform", "distance")},
    ),
}


def estimators_that_take(name: str) -> str:
    """Return the models that are given a parameter, between commas, for its help."""
    return ", ".join(
        key
        for key, model in ESTIMATORS.items()
        if name in {taken.rpartition("__")[2] for taken in model.takes}
    )


def grid_points(values: Range | tuple[Any, ...], count: int) -> tuple[Any, ...]:
    """Return `count` values of a range at equal distances, or all of a choice."""
    if isinstance(values, tuple):
        return values
    steps = [step / (count - 1) for step in range(count)]
    low, high = values.low, values.high
    points = [low * (high / low) ** step if values.log else low + (high - low) * step for step in steps]
    return tuple(dict.fromkeys(round(point) if values.is_integer else min(point, high) for point in points))
