"""Compare a candidate and a champion on the same rows by any metric."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from registry_tools.stats import bootstrap
from registry_tools.stats.intervals import (
    SIGNIFICANCE,
    Z_ONE_SIDED,
    Estimate,
    paired_difference,
    paired_p_value,
)
from registry_tools.stats.log_loss import row_losses
from registry_tools.stats.metric import Metric, Outcomes
from registry_tools.stats.paired_losses import loss_difference, widest
from registry_tools.stats.paired_test import POWER, PairedComparison, compare_counts, rows_needed
from registry_tools.task import CLASSIFICATION

# The margin of these metrics is a share of the champion's value, because they have a unit.
RELATIVE_METRICS = ("rmse", "mae", "median_absolute_error", "log_loss")
_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class MetricDifference:
    """The paired comparison of a candidate and a champion by one metric.

    `difference` is the candidate's value minus the champion's, with its 95% interval. `gain` is how much
    better the candidate is, in the units of the margin, and `bound` its one-sided 95% lower limit.
    """

    metric: str
    rows: int
    candidate: float
    champion: float
    difference: float
    low: float
    high: float
    gain: float
    bound: float
    p_worse: float
    p_better: float
    relative: bool = False  # whether `gain`, `bound` and the margin are shares of the champion's value
    less_is_better: bool = False
    accuracy: PairedComparison | None = None  # the counts behind it, if the metric is the accuracy

    @property
    def prefix(self) -> str:
        """The name of the metric for messages, where values without a name are accuracies."""
        return "" if self.metric == "accuracy" else f"{self.metric} "

    @property
    def format(self) -> str:
        """The format of the values: four decimals, or five digits of a value with a unit."""
        return ".5g" if self.relative else ".4f"

    @property
    def p_value(self) -> float:
        """The two-sided p-value."""
        return min(1.0, 2 * min(self.p_worse, self.p_better))

    def rows_needed(self, margin: float) -> int:
        """Return the number of rows at which an equal candidate passes `non-inferior` in 80% of cases."""
        if self.accuracy is not None:
            return rows_needed(self.accuracy, margin)
        error = (self.gain - self.bound) / Z_ONE_SIDED
        return math.ceil(self.rows * (error * (Z_ONE_SIDED + NormalDist().inv_cdf(POWER)) / margin) ** 2)

    def metrics(self) -> dict[str, float]:
        """Return the values to log, by name."""
        if self.accuracy is not None:
            return self.accuracy.metrics()
        names = ("rows", "candidate", "champion", "difference", "low", "high", "gain", "bound")
        values = {name: float(getattr(self, name)) for name in (*names, "p_worse", "p_better")}
        return {
            {"candidate": "candidate_value", "champion": "champion_value"}.get(name, name): value
            for name, value in values.items()
        }


def compare_by(
    metric: Metric, candidate: Outcomes, champion: Outcomes, *, unseen_mistake: bool = True
) -> MetricDifference | None:
    """Compare two versions on the same rows; return None if the metric is undefined for one of them.

    Parameters
    ----------
    metric, candidate, champion
        The metric, and both versions on the same rows.
    unseen_mistake
        Whether the log loss must also hold with one more row, on which both versions are wrong.

    Notes
    -----
    Accuracy and the recall of a class use the exact McNemar test and Tango's interval, balanced accuracy
    the intervals of the recalls, and a mean loss (rmse, mae, r2, log_loss) Student's t. All other metrics
    use Student's t with the standard error of the paired bootstrap.

    Raises
    ------
    InputError
        If the metric needs probabilities that a version lacks, or a function of the user fails.
    """
    values = metric.compute(candidate), metric.compute(champion)
    if not np.isfinite(values).all() or len(candidate.labels) < 2:
        return None
    kind, _, of_class = metric.name.partition(":")
    if metric.name == "accuracy" or kind == "recall":
        among = candidate.labels == of_class if of_class else np.ones(len(candidate.labels), bool)
        return _compare_shares(metric, candidate, champion, among)
    if metric.name == "balanced_accuracy":
        return _compare_balanced_accuracy(metric, values, candidate, champion)
    losses = _losses(metric, values, candidate, champion, unseen_mistake)
    if losses is not None:
        return losses
    return _compare_replicates(metric, values, candidate, champion)


def _compare_shares(
    metric: Metric, candidate: Outcomes, champion: Outcomes, among: npt.NDArray[Any]
) -> MetricDifference:
    right, other = (np.asarray(each.predicted == each.labels)[among] for each in (candidate, champion))
    compared = compare_counts(
        rows=int(among.sum()),
        only_candidate_right=int(np.sum(right & ~other)),
        only_champion_right=int(np.sum(other & ~right)),
        both_right=int(np.sum(right & other)),
    )
    return by_accuracy(compared) if metric.name == "accuracy" else _from_counts(metric.name, compared)


def by_accuracy(compared: PairedComparison) -> MetricDifference:
    """Return the comparison by accuracy in the form of any metric."""
    return replace(_from_counts("accuracy", compared), accuracy=compared)


def _from_counts(name: str, compared: PairedComparison) -> MetricDifference:
    return MetricDifference(
        metric=name,
        rows=compared.rows,
        candidate=compared.candidate_accuracy,
        champion=compared.champion_accuracy,
        difference=compared.difference,
        low=compared.low,
        high=compared.high,
        gain=compared.difference,
        bound=compared.bound,
        p_worse=compared.p_worse,
        p_better=compared.p_better,
    )


def _compare_balanced_accuracy(
    metric: Metric, values: tuple[float, float], candidate: Outcomes, champion: Outcomes
) -> MetricDifference:
    right, other = (np.asarray(each.predicted == each.labels) for each in (candidate, champion))
    classes = [np.asarray(candidate.labels == name) for name in np.unique(candidate.labels.astype(str))]
    gained = [int(np.sum(right & ~other & among)) for among in classes]
    lost = [int(np.sum(other & ~right & among)) for among in classes]
    rows = [int(among.sum()) for among in classes]
    interval = paired_difference(gained, lost, rows)
    half = paired_p_value(gained, lost, rows) / 2
    p_worse, p_better = (half, 1 - half) if interval.value < 0 else (1 - half, half)
    if interval.value == 0:
        p_worse = p_better = 1.0
    bound = paired_difference(gained, lost, rows, Z_ONE_SIDED).low
    return _difference(metric, values, len(right), interval, bound, p_worse, p_better)


def _losses(
    metric: Metric, values: tuple[float, float], candidate: Outcomes, champion: Outcomes, unseen_mistake: bool
) -> MetricDifference | None:
    """Compare by a metric that is a mean loss, or follows from one; None for any other metric."""
    pair = _row_losses(metric.name, candidate, champion)
    if pair is None:
        return None
    one, two = pair
    rows = len(candidate.labels)
    if metric.name == "r2":
        unit = (candidate.labels - candidate.labels.mean()) ** 2
        found = loss_difference(one, two, unit)
        interval = Estimate(values[0] - values[1], -found.high, -found.low)
        return _difference(metric, values, rows, interval, -found.upper, found.p_worse, found.p_better)
    if not values[1]:  # nothing is a share of an error of 0
        return _worse_than_perfect(metric, values, rows, one)
    # The losses of log loss have one more row, and the result has to hold with and without it.
    counts = sorted({rows, len(one) if unseen_mistake else rows})
    share = widest([loss_difference(one[:count], two[:count], two[:count]) for count in counts])
    if metric.name == "rmse":  # the relative difference of the roots, from that of the squares
        low, high, upper = (
            math.sqrt(max(0.0, 1 + each)) - 1 for each in (share.low, share.high, share.upper)
        )
        interval = Estimate(values[0] - values[1], low * values[1], high * values[1])
        return _difference(metric, values, rows, interval, -upper, share.p_worse, share.p_better)
    ones = np.ones_like(two)
    plain = widest([loss_difference(one[:count], two[:count], ones[:count]) for count in counts])
    interval = Estimate(values[0] - values[1], plain.low, plain.high)
    return _difference(metric, values, rows, interval, -share.upper, share.p_worse, share.p_better)


def _row_losses(name: str, candidate: Outcomes, champion: Outcomes) -> tuple[_Floats, _Floats] | None:
    """Return the losses of both versions; those of log loss end with a row on which both are wrong."""
    if name == "log_loss":
        found = [
            row_losses(each.labels, np.asarray(each.probabilities), each.classes)
            for each in (candidate, champion)
        ]
        one, two = found
        if one is None or two is None:
            return None
        return np.append(one.values, one.cost), np.append(two.values, two.cost)
    if name not in {"rmse", "mae", "r2"}:
        return None
    errors = [np.abs(each.predicted - each.labels) for each in (candidate, champion)]
    power = 1 if name == "mae" else 2
    return errors[0] ** power, errors[1] ** power


def _worse_than_perfect(
    metric: Metric, values: tuple[float, float], rows: int, losses: _Floats
) -> MetricDifference:
    found = loss_difference(losses, np.zeros_like(losses), np.ones_like(losses))
    interval = Estimate(values[0], min(found.low, values[0]), max(found.high, values[0]))
    bound = -1.0 if values[0] else 0.0
    return _difference(metric, values, rows, interval, bound, found.p_worse, found.p_better)


def _compare_replicates(
    metric: Metric, values: tuple[float, float], candidate: Outcomes, champion: Outcomes
) -> MetricDifference | None:
    from scipy.stats import t as student  # takes half a second to import, which `show` does not need

    pair = (candidate, champion)
    if metric.task == CLASSIFICATION:
        pair = bootstrap.with_confusions(metric, *pair)
    replicates = bootstrap.replicate(metric, *pair)
    defined = np.isfinite(replicates).all(axis=1)
    if defined.mean() < 0.5:
        return None
    replicates = replicates[defined]
    difference = values[0] - values[1]
    error = float((replicates[:, 0] - replicates[:, 1]).std(ddof=1))
    freedom = len(candidate.labels) - 1
    two_sided, one_sided = student.ppf([1 - SIGNIFICANCE / 2, 1 - SIGNIFICANCE], freedom)
    interval = Estimate(difference, difference - two_sided * error, difference + two_sided * error)
    side = -1 if metric.less_is_better else 1
    if error > 0:
        p_worse, p_better = (float(student.sf(s * side * difference / error, freedom)) for s in (-1, 1))
    else:
        p_worse, p_better = float(side * difference >= 0), float(side * difference <= 0)
    scale, relative_error = 1.0, error
    if metric.name in RELATIVE_METRICS:
        scale = values[1] or values[0] or 1.0
        given = replicates[replicates[:, 1] > 0]
        if len(given) > 1:
            relative_error = float((given[:, 0] / given[:, 1]).std(ddof=1))
    bound = side * difference / scale - float(one_sided) * relative_error
    return _difference(metric, values, len(candidate.labels), interval, bound, p_worse, p_better)


def _difference(
    metric: Metric,
    values: tuple[float, float],
    rows: int,
    interval: Estimate,
    bound: float,
    p_worse: float,
    p_better: float,
) -> MetricDifference:
    relative = metric.name in RELATIVE_METRICS
    gain = (values[1] - values[0]) if metric.less_is_better else (values[0] - values[1])
    if relative:
        gain = gain / (values[1] or values[0] or 1.0)
    return MetricDifference(
        metric.name,
        rows,
        *values,
        values[0] - values[1],
        float(interval.low),
        float(interval.high),
        gain,
        min(float(bound), gain),
        p_worse,
        p_better,
        relative,
        metric.less_is_better,
    )
