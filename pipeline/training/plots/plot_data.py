"""Compute the values of the plots of a run: curves, reliability, importance, dependence, learning curve.

The functions return plain lists and dicts, which `figures` draws and `save_plots` writes as JSON.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn import metrics
from sklearn.inspection import permutation_importance
from sklearn.model_selection import ShuffleSplit, StratifiedShuffleSplit

from pipeline.data.dataset import Dataset
from pipeline.training.scoring import score
from registry_tools.data.dates import are_dates
from registry_tools.errors import first_line
from registry_tools.stats.metric import Metric, Outcomes

_log = logging.getLogger(__name__)

_POINTS = 200  # points of a curve at most; more are not visible in the figure
_BINS = 10
_REPEATS = 5
_SHARES = (0.1, 0.25, 0.5, 0.75)
_MOST_ROWS = 2000  # points of a scatter plot
_GRID, _SAMPLE, _MOST_LINES = 20, 100, 5  # values, rows and classes of a partial dependence


def confusions(outcomes: Outcomes) -> dict[str, Any]:
    """Return the classes, and the counts of rows by true and predicted class, in the order of the classes."""
    counts = metrics.confusion_matrix(outcomes.labels, outcomes.predicted, labels=outcomes.classes)
    return {"classes": list(outcomes.classes), "counts": counts.tolist()}


def one_against_the_rest(outcomes: Outcomes) -> dict[str, dict[str, Any]]:
    """Return the ROC curve and the precision-recall curve of each class, with their areas.

    Parameters
    ----------
    outcomes
        The holdout, with probabilities. A class without holdout rows gets no curve.
    """
    found = {}
    for name, scores in zip(outcomes.classes, np.asarray(outcomes.probabilities).T, strict=True):
        positive = outcomes.labels == name
        if positive.all() or not positive.any():
            continue
        false_rate, true_rate, _ = metrics.roc_curve(positive, scores)
        precision, recall, _ = metrics.precision_recall_curve(positive, scores)
        found[name] = {
            "rows": int(positive.sum()),
            "roc": _curve(false_positive_rate=false_rate, true_positive_rate=true_rate),
            "roc_auc": float(metrics.roc_auc_score(positive, scores)),
            "precision_recall": _curve(recall=recall[::-1], precision=precision[::-1]),
            "average_precision": float(metrics.average_precision_score(positive, scores)),
        }
    return found


def _curve(**axes: npt.NDArray[np.float64]) -> dict[str, list[float]]:
    length = len(next(iter(axes.values())))
    kept = np.unique(np.linspace(0, length - 1, min(length, _POINTS)).astype(int))
    return {name: np.round(values[kept], 6).tolist() for name, values in axes.items()}


def reliability(outcomes: Outcomes) -> dict[str, Any]:
    """Return the accuracy by the probability of the predicted class, in ten bins of equal width.

    `expected_calibration_error` is the mean distance between accuracy and probability, weighted by the
    rows of each bin.

    Parameters
    ----------
    outcomes
        The holdout, with probabilities.
    """
    scores = pd.DataFrame(outcomes.probabilities, columns=outcomes.classes)
    confidence = scores.max(axis=1)
    rows = pd.DataFrame({"confidence": confidence, "accuracy": scores.idxmax(axis=1) == outcomes.labels})
    in_bin = rows.groupby(np.minimum((confidence * _BINS).astype(int), _BINS - 1))
    bins = in_bin.mean().round(6).assign(rows=in_bin.size())
    error = np.average((bins["confidence"] - bins["accuracy"]).abs(), weights=bins["rows"])
    return {"bins": bins.to_dict("records"), "expected_calibration_error": round(float(error), 6)}


def errors(outcomes: Outcomes) -> dict[str, list[float]]:
    """Return the true number, the predicted number and the residual of at most 2000 rows.

    A residual is the true number minus the predicted one.
    """
    rows = len(outcomes.labels)
    kept = np.sort(np.random.default_rng(0).choice(rows, min(rows, _MOST_ROWS), replace=False))
    true, predicted = outcomes.labels[kept], outcomes.predicted[kept]
    return {"true": true.tolist(), "predicted": predicted.tolist(), "residual": (true - predicted).tolist()}


def importance(estimator: Any, holdout: Dataset, metric: Metric, random_state: int) -> list[dict[str, Any]]:
    """Return the permutation importance of each column, largest first.

    The importance of a column is how much worse the metric of the model gets if the values of the
    column are shuffled.

    Parameters
    ----------
    estimator
        The fitted estimator.
    holdout
        The held-out rows.
    metric
        The metric.
    random_state
        The seed of the permutations.
    """

    def score_shuffled(model: Any, features: pd.DataFrame, labels: pd.Series) -> float:
        value = score(metric, model, replace(holdout, features=features, labels=labels))
        return -value if metric.less_is_better else value

    features, repeats = holdout.features, {"n_repeats": _REPEATS, "random_state": random_state}
    found = permutation_importance(estimator, features, holdout.labels, scoring=score_shuffled, **repeats)
    values = {"column": features.columns, "mean": found.importances_mean, "std": found.importances_std}
    table = pd.DataFrame(values).round(6).sort_values("mean", ascending=False, kind="stable")
    return table.to_dict("records")


def partial_dependence(estimator: Any, training: Dataset, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Return the mean prediction by the value of each column, while the other columns keep their values.

    It is the mean probability of the second of two classes, of at most five of more classes (the ones with
    the most rows), or the mean predicted number. Without probabilities, the result is empty.

    Parameters
    ----------
    estimator
        The fitted pipeline.
    training
        The training rows, of which at most 100 are predicted.
    columns
        The raw columns.
    """
    names = training.target_names
    if names and not hasattr(estimator, "predict_proba"):
        return []
    predict = estimator.predict_proba if names else estimator.predict
    classes = [names[code] for code in estimator.classes_] if names else ["prediction"]
    most = sorted(training.labels.value_counts().index[:_MOST_LINES]) if len(names) > 2 else []
    shown = [names[code] for code in most] or classes[-1:]
    sample = training.features.sample(min(len(training.labels), _SAMPLE), random_state=0)
    found = []
    # `sklearn.inspection.partial_dependence` refuses whole numbers and predicts each value by itself.
    for column in columns:
        values = _dependence_values(training.features[column].dropna())
        if not len(values):
            continue
        rows = sample.iloc[np.tile(np.arange(len(sample)), len(values))]
        rows = rows.assign(**{column: values.repeat(len(sample)).to_numpy()})
        means = predict(rows).reshape(len(values), len(sample), -1).mean(axis=1).round(6)
        curves = {name: means[:, classes.index(name)].tolist() for name in shown}
        found.append({"column": column, "values": values.tolist(), "mean": curves})
    return found


def _dependence_values(known: pd.Series) -> pd.Series:
    """Return all values if they are few, else the commonest texts, or numbers or dates of 20 quantiles."""
    if known.nunique() <= _GRID:
        return known.drop_duplicates().sort_values()
    if not pd.api.types.is_numeric_dtype(known) and not are_dates(known):
        return known.value_counts().index[:_GRID].to_series()
    places = np.linspace(0.02, 0.98, _GRID) * (len(known) - 1)  # an outlier would take most of the axis
    return known.sort_values().iloc[places.astype(int)].drop_duplicates()


def learning_curve(
    fit: Callable[[Dataset], Any],
    fitted: Any,
    training: Dataset,
    holdout: Dataset,
    metric: Metric,
    random_state: int,
) -> list[dict[str, Any]]:
    """Return the metric on training rows and holdout by the number of training rows.

    Parameters
    ----------
    fit
        Returns an estimator that is fitted to the given training rows.
    fitted
        The estimator that was fitted to all training rows; it gives the last point.
    training, holdout
        The training rows and the held-out rows.
    metric
        The metric.
    random_state
        The seed that draws the training rows of each point.
    """
    kind = StratifiedShuffleSplit if training.target_names else ShuffleSplit
    classes = training.labels.nunique() if training.target_names else 1
    points = []
    for share in _SHARES:
        rows = round(share * len(training.labels))
        if not 2 * classes <= rows <= len(training.labels) - classes:
            continue
        drawn = kind(1, train_size=rows, random_state=random_state)
        part = training.take(next(drawn.split(training.features, training.labels))[0])
        try:
            points.append(_point(metric, fit(part), part, holdout))
        except ValueError as error:
            # The estimator needs more rows, for example one of each class in each fold.
            _log.warning("the learning curve has no point at %d rows: %s", rows, first_line(error, 150))
    return [*points, _point(metric, fitted, training, holdout)]


def _point(metric: Metric, estimator: Any, training: Dataset, holdout: Dataset) -> dict[str, Any]:
    sides = {"training": training, "holdout": holdout}
    values = {name: round(score(metric, estimator, side), 6) for name, side in sides.items()}
    return {"rows": len(training.labels), **values}
