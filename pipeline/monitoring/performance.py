"""The live performance of a version: its metric on labelled production data and at promotion."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipeline.monitoring.data.labels import LabelledPredictions
from pipeline.training.baseline import TrainingBaseline
from registry_tools.stats.bootstrap import bootstrap_estimate
from registry_tools.stats.drift.drift_tests import DriftTest, share_test
from registry_tools.stats.drift.permutation_test import permutation_test
from registry_tools.stats.intervals import Estimate, wilson
from registry_tools.stats.metric import Metric, Outcomes, compared_rows, find_metric, runs_code
from registry_tools.stats.metric_comparison import estimate_number_metric
from registry_tools.stats.paired_metric import MEAN_LOSSES
from registry_tools.task import DEFAULT_METRICS, REGRESSION

_SHARES = {"accuracy", "recall", "precision"}


@dataclass(frozen=True)
class LivePerformance:
    """The metric of a version, live and at promotion, with 95% intervals; None where it is undefined."""

    metric: str
    less_is_better: bool
    interval: str  # the name of the method
    rows: int
    live: Estimate | None
    promoted_rows: int
    promoted: Estimate | None
    notes: tuple[str, ...]

    def describe_change(self) -> str:
        """Return how the metric changed if it got worse, such as `live accuracy fell`."""
        return f"live {self.metric} {'rose' if self.less_is_better else 'fell'}"


def compare_live(
    baseline: TrainingBaseline, live: LabelledPredictions
) -> tuple[LivePerformance, DriftTest | None]:
    """Compare the metric of a version on live rows with its value on the holdout.

    A share of rows, such as accuracy or a recall, gets Wilson's interval and Fisher's exact test. All
    other metrics get a permutation test: it draws at random which outcomes are the live ones, and
    approximates the distribution of the difference by its mean, standard deviation and skewness. Their
    interval is that of a comparison for a regression, and the bootstrap's for classes.

    Parameters
    ----------
    baseline
        The training baseline of the version.
    live
        The labelled predictions, at least one.

    Returns
    -------
    The performance, and the test whether it is worse than at promotion; None if it cannot be tested.
    """
    metric, notes = _choose_metric(baseline, live)
    if metric.name.partition(":")[0] in _SHARES:
        current, promoted = _share(metric, live.outcomes), _share(metric, baseline.outcomes)
        values = [wilson(*side) if side[1] else None for side in (current, promoted)]
        test = share_test(promoted, current, f"live {metric.name}")
        rows, method = (current[1], promoted[1]), "Wilson"
    else:
        values = [_estimate(metric, side) for side in (live.outcomes, baseline.outcomes)]
        test = permutation_test(metric, baseline.outcomes, live.outcomes, f"live {metric.name}")
        method = "Student" if metric.name in MEAN_LOSSES else "bootstrap"
        rows = live.rows, len(baseline.outcomes.labels)
    for value, where in zip(values, ("labelled rows", "held-out rows"), strict=True):
        if value is None:
            notes += (f"{metric.name} is undefined on the {where}, for example because they lack a class",)
    found = LivePerformance(
        metric.name, metric.less_is_better, method, rows[0], values[0], rows[1], values[1], notes
    )
    return found, test


def _choose_metric(baseline: TrainingBaseline, live: LabelledPredictions) -> tuple[Metric, tuple[str, ...]]:
    """Return the metric of the version, or the default of its task and why it is used instead."""
    name, default = baseline.metric, DEFAULT_METRICS[baseline.task]
    if runs_code(name):
        reason = "the monitor runs no code that a version names"
    else:
        metric = find_metric(name, baseline.task)
        if not metric.needs_probabilities or live.outcomes.probabilities is not None:
            return metric, live.notes
        reason = "the rows have no probabilities"
    note = f"{default} is compared instead of {name}: {reason}"
    return find_metric(default, baseline.task), (*live.notes, note)


def _estimate(metric: Metric, outcomes: Outcomes) -> Estimate | None:
    if math.isnan(metric.compute(outcomes)):
        return None
    estimate = estimate_number_metric if metric.task == REGRESSION else bootstrap_estimate
    return estimate(metric, outcomes)


def _share(metric: Metric, outcomes: Outcomes) -> tuple[int, int]:
    """Return the right rows and all rows that a recall, a precision or the accuracy counts."""
    rows = compared_rows(metric, outcomes, outcomes)
    return round(metric.compute(outcomes) * rows) if rows else 0, rows
