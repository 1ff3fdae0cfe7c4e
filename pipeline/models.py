"""The estimators that can be trained, each in an entry of one table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Model:
    """Where an estimator comes from, and which parameters of a training it is given.

    Text, not the class itself: the command line names the models without importing scikit-learn.
    """

    made_by: str  # module:name of a class or function; called without arguments
    takes: tuple[str, ...] = ("random_state",)  # of `TrainParams`; in a Pipeline, step__name


MODELS: Mapping[str, Model] = {
    "logistic_regression": Model(
        "sklearn.linear_model:LogisticRegression", takes=("max_iter", "random_state")
    ),
    "random_forest": Model("sklearn.ensemble:RandomForestClassifier"),
    "hist_gradient_boosting": Model(
        "sklearn.ensemble:HistGradientBoostingClassifier", takes=("max_iter", "random_state")
    ),
    "svc": Model("sklearn.svm:SVC"),
    "knn": Model("sklearn.neighbors:KNeighborsClassifier", takes=()),
}


def models_that_take(name: str) -> str:
    """Return the models that are given a parameter, between commas, for its help."""
    return ", ".join(
        key
        for key, model in MODELS.items()
        if name in {taken.rpartition("__")[2] for taken in model.takes}
    )
