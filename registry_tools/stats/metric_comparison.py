"""Compare the metrics of two versions on the same rows, with intervals and corrected p-values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from registry_tools.stats import bootstrap
from registry_tools.stats.intervals import SIGNIFICANCE, Z_TWO_SIDED, Estimate, mean_share, wilson
from registry_tools.stats.losses import loss_difference, mean_log_loss, mean_loss, row_losses
from registry_tools.stats.metric import Metric, Outcomes, find_metric
from registry_tools.stats.metric_difference import MetricDifference
from registry_tools.stats.multiple_testing import holm
from registry_tools.stats.paired_metric import compare_by, compare_shares
from registry_tools.task import CLASSIFICATION, REGRESSION


@dataclass(frozen=True)
class MetricComparison:
    """One metric of two versions, and the paired difference first minus second.

    The difference and the p-values are None if there is no paired difference. `p_value` is two-sided.
    `adjusted_p_value` is corrected for all metrics of the comparison.
    """

    name: str
    first: Estimate
    second: Estimate
    difference: Estimate | None = None
    p_value: float | None = None
    adjusted_p_value: float | None = None
    less_is_better: bool = False
    of_class: bool = False

    @property
    def better(self) -> int | None:
        """The significantly better version, 0 or 1; None if there is no significant difference."""
        if self.difference is None or self.adjusted_p_value is None or self.adjusted_p_value >= SIGNIFICANCE:
            return None
        return int((self.difference.value > 0) == self.less_is_better)


def compare_metrics(first: Outcomes, second: Outcomes) -> list[MetricComparison]:
    """Return accuracy, balanced accuracy, log loss, and recall and precision by class.

    Parameters
    ----------
    first, second
        Two versions on the same rows, at least one. Log loss is left out if a version has no
        probabilities, for a single row, and if a version lacks a class of the labels or returns NaN or
        infinity.

    Notes
    -----
    The p-values come from the exact two-sided McNemar test; for balanced accuracy and log loss, from
    the interval. Holm's method corrects all of them together: if two versions are equal, at most 5% of
    the comparisons call one of them better in any metric. The precisions of two versions count
    different rows, so they have no paired difference. The precision of a class that a version never
    predicts is undefined and left out.
    """
    labels, sides = first.labels, (first, second)
    right = [np.asarray(each.predicted == labels) for each in sides]
    found = [_compare_shares("accuracy", right)]
    estimates = {"balanced_accuracy": _estimate_balanced_accuracy}
    if all(each.probabilities is not None for each in sides):
        estimates["log_loss"] = _estimate_log_loss
    for name, estimate in estimates.items():
        difference = compare_by(find_metric(name, CLASSIFICATION), first, second)
        if difference is not None:
            found.append(_compared(name.replace("_", " "), difference, [estimate(each) for each in sides]))
    for name in sorted({*labels.tolist(), *first.predicted.tolist(), *second.predicted.tolist()}):
        among = np.asarray(labels == name)
        if among.any():
            found.append(_compare_shares(f"recall of {name}", [each[among] for each in right], True))
        predicted = [np.asarray(each.predicted == name) for each in sides]
        if all(each.any() for each in predicted):
            one, two = (wilson(int(np.sum(among & each)), int(each.sum())) for each in predicted)
            found.append(MetricComparison(f"precision of {name}", one, two, of_class=True))
    return _correct_together(found)


def compare_number_metrics(
    differences: Sequence[MetricDifference], first: Outcomes, second: Outcomes
) -> list[MetricComparison]:
    """Return the metrics with an interval of each version and of the difference.

    Holm's method corrects all p-values together.

    Parameters
    ----------
    differences
        The paired comparisons of the two versions, one for each metric.
    first, second
        Both versions on the same rows, at least two.
    """
    found = []
    for each in differences:
        metric = find_metric(each.metric, REGRESSION)
        estimates = [estimate_number_metric(metric, side) for side in (first, second)]
        found.append(_compared(each.metric, each, estimates))
    return _correct_together(found)


def estimate_number_metric(metric: Metric, outcomes: Outcomes) -> Estimate:
    """Return a metric of a regression with its 95% interval.

    The interval is Student's for the metrics of a mean loss (rmse, mae, r2), else the bootstrap's. It is
    the value alone if there is one row only, or the metric is undefined.
    """
    value = metric.compute(outcomes)
    if len(outcomes.labels) < 2 or not math.isfinite(value):
        return Estimate(value, value, value)
    errors = np.abs(outcomes.predicted - outcomes.labels)
    if metric.name == "mae":
        return mean_loss(errors)
    if metric.name == "rmse":
        found = mean_loss(errors**2)
        return Estimate(value, math.sqrt(found.low), math.sqrt(found.high))
    if metric.name == "r2":
        spread = (outcomes.labels - outcomes.labels.mean()) ** 2
        ratio = loss_difference(errors**2, np.zeros_like(errors), spread)
        return Estimate(value, 1 - ratio.high, min(1.0, 1 - ratio.low))
    reach = Z_TWO_SIDED * float(np.nanstd(bootstrap.replicate(metric, outcomes), ddof=1))
    low = max(0.0, value - reach) if metric.less_is_better else value - reach
    return Estimate(value, low, value + reach)


def _compare_shares(
    name: str, right: Sequence[npt.NDArray[np.bool_]], of_class: bool = False
) -> MetricComparison:
    """Compare the shares of rows that two versions predict right, given as masks of the rows."""
    first, second = right
    shares = [wilson(int(each.sum()), len(each)) for each in right]
    return _compared(name, compare_shares(first, second), shares, of_class)


def _compared(
    name: str, difference: MetricDifference, estimates: Sequence[Estimate], of_class: bool = False
) -> MetricComparison:
    first, second = estimates
    limits = Estimate(difference.difference, difference.low, difference.high)
    is_loss = difference.less_is_better
    return MetricComparison(name, first, second, limits, difference.p_value, None, is_loss, of_class)


def _estimate_balanced_accuracy(outcomes: Outcomes) -> Estimate:
    _, codes = np.unique(outcomes.labels.astype(str), return_inverse=True)
    right = np.asarray(outcomes.predicted == outcomes.labels)
    return mean_share(np.bincount(codes, right).tolist(), np.bincount(codes).tolist())


def _estimate_log_loss(outcomes: Outcomes) -> Estimate:
    losses = row_losses(outcomes)
    assert losses is not None
    return mean_log_loss(losses)


def _correct_together(found: Sequence[MetricComparison]) -> list[MetricComparison]:
    """Return the metrics with all their p-values corrected together by Holm's method."""
    adjusted = iter(holm([metric.p_value for metric in found if metric.p_value is not None]))
    return [
        metric if metric.p_value is None else replace(metric, adjusted_p_value=next(adjusted))
        for metric in found
    ]
