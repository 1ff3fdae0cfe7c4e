"""Compare the metrics of two regressions on the same rows, with intervals and corrected p-values."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from registry_tools.stats import bootstrap
from registry_tools.stats.intervals import Z_TWO_SIDED, Estimate
from registry_tools.stats.metric import Metric, Outcomes, find_metric
from registry_tools.stats.metric_comparison import MetricComparison, correct_together
from registry_tools.stats.paired_losses import loss_difference
from registry_tools.stats.paired_metric import MetricDifference

MEAN_LOSSES = ("rmse", "mae", "r2")  # the metrics with Student's interval


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
        metric = find_metric(each.metric, "regression")
        found.append(
            MetricComparison(
                each.metric,
                estimate_number_metric(metric, first),
                estimate_number_metric(metric, second),
                Estimate(each.difference, each.low, each.high),
                each.p_value,
                less_is_better=each.less_is_better,
            )
        )
    return correct_together(found)


def estimate_number_metric(metric: Metric, outcomes: Outcomes) -> Estimate:
    """Return a metric of a regression with its 95% interval.

    The interval is Student's for the metrics of a mean loss (rmse, mae, r2), else the bootstrap's. It is
    the value alone if there is one row only, or the metric is undefined.
    """
    value = metric.compute(outcomes)
    if len(outcomes.labels) < 2 or not math.isfinite(value):
        return Estimate(value, value, value)
    errors = np.abs(outcomes.predicted - outcomes.labels)
    none = np.zeros_like(errors)
    if metric.name == "mae":
        found = loss_difference(errors, none, np.ones_like(errors))
        return Estimate(value, max(0.0, found.low), found.high)
    if metric.name == "rmse":
        found = loss_difference(errors**2, none, np.ones_like(errors))
        return Estimate(value, math.sqrt(max(0.0, found.low)), math.sqrt(max(0.0, found.high)))
    if metric.name == "r2":
        found = loss_difference(errors**2, none, (outcomes.labels - outcomes.labels.mean()) ** 2)
        return Estimate(value, 1 - found.high, min(1.0, 1 - found.low))
    reach = Z_TWO_SIDED * float(np.nanstd(bootstrap.replicate(metric, outcomes, outcomes)[:, 0], ddof=1))
    low = max(0.0, value - reach) if metric.less_is_better else value - reach
    return Estimate(value, low, value + reach)
