"""Compare two versions by a metric that is not the mean of a loss, with the paired bootstrap.

A replicate draws the rows with replacement, the same for both versions. Where the metric can be computed
from the number of times that each row was drawn, many replicates are computed at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from registry_tools.stats.intervals import Estimate
from registry_tools.stats.metric import Metric, Outcomes, label_losses

_Floats = npt.NDArray[np.float64]
Weighted = Callable[[Outcomes, _Floats], _Floats]  # outcomes, and counts of shape (replicates, rows)
REPLICATES = 1_000
SLOW_REPLICATES = 400  # of a function of the user: they suffice for a standard error
_SEED = 0
_MOST_COUNTS = 4_000_000  # computed at once, 32 MB


def bootstrap_estimate(metric: Metric, outcomes: Outcomes) -> Estimate:
    """Return the value of a metric, with its 95% interval by the percentile bootstrap over the rows."""
    value = metric.compute(outcomes)
    low, high = np.nanquantile([value, *replicate(metric, outcomes)[:, 0]], [0.025, 0.975])
    return Estimate(value, min(value, float(low)), max(value, float(high)))


def replicate(metric: Metric, *versions: Outcomes) -> _Floats:
    """Return the metric of each version in each replicate of their rows, shape (replicates, versions).

    Replicates in which it is undefined for a version, such as those without a class, are NaN.
    """
    rng, weighted, rows = np.random.default_rng(_SEED), _weighted(metric.name), len(versions[0].labels)
    replicates = REPLICATES if weighted else SLOW_REPLICATES
    at_once = max(1, _MOST_COUNTS // rows)
    parts = []
    for start in range(0, replicates, at_once):
        drawn = rng.integers(rows, size=(min(at_once, replicates - start), rows))
        if weighted is None:
            values = [[metric.compute(each.take(places)) for each in versions] for places in drawn]
            parts.append(np.array(values))
        else:
            offsets = np.arange(len(drawn))[:, None] * rows
            counts = np.bincount((drawn + offsets).ravel(), minlength=drawn.size).reshape(drawn.shape)
            floats = counts.astype(float)
            parts.append(np.column_stack([weighted(each, floats) for each in versions]))
    return np.concatenate(parts)


def _weighted(name: str) -> Weighted | None:
    kind, _, of_class = name.partition(":")
    if kind == "precision":
        return lambda outcomes, counts: _weighted_precision(outcomes, counts, of_class)
    return _WEIGHTED.get(name)


def _weighted_precision(outcomes: Outcomes, counts: _Floats, name: str) -> _Floats:
    predicted = outcomes.predicted == name
    right = predicted & (outcomes.labels == name)
    return _divide(counts @ right.astype(float), counts @ predicted.astype(float))


def _weighted_f1_macro(outcomes: Outcomes, counts: _Floats) -> _Floats:
    """Return the mean over the classes that a replicate contains, as label or as prediction."""
    classes = np.unique(np.concatenate([outcomes.labels, outcomes.predicted]))
    labels = np.equal.outer(outcomes.labels, classes).astype(float)
    predicted = np.equal.outer(outcomes.predicted, classes).astype(float)
    present = counts @ (labels + predicted)
    f1 = 2 * (counts @ (labels * predicted)) / np.maximum(present, 1)
    return f1.sum(axis=1) / (present > 0).sum(axis=1)


def _weighted_ranking(score: Callable[[npt.NDArray[np.bool_], _Floats, _Floats], _Floats]) -> Weighted:
    """Return the mean over the classes, as `metric` computes it; of two classes, the second's value."""

    def compute(outcomes: Outcomes, counts: _Floats) -> _Floats:
        columns = range(1, 2) if len(outcomes.classes) == 2 else range(len(outcomes.classes))
        scores = np.asarray(outcomes.probabilities)
        values = [
            score(np.asarray(outcomes.labels == outcomes.classes[column]), scores[:, column], counts)
            for column in columns
        ]
        return np.mean(values, axis=0)

    return compute


def _cumulated(is_class: npt.NDArray[np.bool_], scores: _Floats, counts: _Floats) -> tuple[_Floats, _Floats]:
    """Return the drawn rows of the class, and of the others, with at least each score, highest first."""
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # equal scores count together
    drawn = counts[:, order]
    positives = np.cumsum(drawn * is_class[order], axis=1)[:, ends]
    return positives, np.cumsum(drawn, axis=1)[:, ends] - positives


def _weighted_roc_auc(is_class: npt.NDArray[np.bool_], scores: _Floats, counts: _Floats) -> _Floats:
    found, alarms = _cumulated(is_class, scores, counts)
    zero = np.zeros((len(counts), 1))
    width, height = np.diff(alarms, axis=1, prepend=zero), np.hstack([zero, found[:, :-1]]) + found
    return _divide((width * height).sum(axis=1) / 2, found[:, -1] * alarms[:, -1])


def _weighted_average_precision(is_class: npt.NDArray[np.bool_], scores: _Floats, counts: _Floats) -> _Floats:
    found, alarms = _cumulated(is_class, scores, counts)
    precision = found / np.maximum(found + alarms, 1)
    gained = np.diff(found, axis=1, prepend=np.zeros((len(counts), 1)))
    defined = np.where(alarms[:, -1] > 0, found[:, -1], 0)
    return _divide((gained * precision).sum(axis=1), defined)


def _weighted_median_error(outcomes: Outcomes, counts: _Floats) -> _Floats:
    errors = np.abs(outcomes.labels - outcomes.predicted)
    order = np.argsort(errors)
    cumulated = np.cumsum(counts[:, order], axis=1)
    rows = counts.shape[1]
    middle = [np.argmax(cumulated > place, axis=1) for place in ((rows - 1) // 2, rows // 2)]
    return np.mean([errors[order][place] for place in middle], axis=0)


def _divide(part: _Floats, whole: _Floats) -> _Floats:
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


_WEIGHTED: dict[str, Weighted] = {
    "f1_macro": _weighted_f1_macro,
    "log_loss": lambda outcomes, counts: counts @ np.asarray(label_losses(outcomes)) / counts.shape[1],
    "roc_auc": _weighted_ranking(_weighted_roc_auc),
    "average_precision": _weighted_ranking(_weighted_average_precision),
    "median_absolute_error": _weighted_median_error,
}


def with_confusions(metric: Metric, candidate: Outcomes, champion: Outcomes) -> tuple[Outcomes, Outcomes]:
    """Return classified rows and two more: on each, one version takes a row of one class for another.

    A few rows may hold no mistake, or no disagreement, and all replicates of them are then equal. With
    the two rows, their spread is never 0. The rows are of the rarest class, or, for the precision of a
    class, of another class taken for it: the mistakes with the greatest influence.
    """
    names, counts = np.unique(candidate.labels.astype(str), return_counts=True)
    if len(names) < 2:
        return candidate, champion
    order = names[np.argsort(counts, kind="stable")].tolist()
    label, other = order[0], order[-1]
    kind, _, of_class = metric.name.partition(":")
    if kind == "precision" and of_class in order:
        label, other = next(name for name in reversed(order) if name != of_class), of_class
    return _append(candidate, label, (label, other)), _append(champion, label, (other, label))


def _append(outcomes: Outcomes, label: str, taken_for: tuple[str, str]) -> Outcomes:
    """Append two rows of a class; the version predicts them as it predicts typical rows of the classes."""
    places = [*range(len(outcomes.labels)), *(_typical(outcomes, name) for name in taken_for)]
    return replace(
        outcomes.take(np.array(places)),
        labels=np.array([*outcomes.labels, label, label], dtype=object),
        predicted=np.array([*outcomes.predicted, *taken_for], dtype=object),
    )


def _typical(outcomes: Outcomes, name: str) -> int:
    """Return the row of a class with the middle probability of the class."""
    rows = np.flatnonzero(outcomes.labels == name)
    if outcomes.probabilities is None or name not in outcomes.classes:
        return int(rows[0])
    own = outcomes.probabilities[rows, outcomes.classes.index(name)]
    return int(rows[np.argsort(own, kind="stable")[len(rows) // 2]])
