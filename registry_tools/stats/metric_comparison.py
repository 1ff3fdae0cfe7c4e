"""Compare the metrics of two versions on the same rows, with intervals and corrected p-values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from registry_tools.stats.intervals import (
    SIGNIFICANCE,
    Estimate,
    mean_share,
    paired_difference,
    paired_p_value,
    wilson,
)
from registry_tools.stats.log_loss import log_loss_difference, mean_log_loss, row_losses
from registry_tools.stats.multiple_testing import holm

Probabilities = tuple[npt.NDArray[np.float64], tuple[str, ...]]  # shape (rows, classes), and class names


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


@dataclass(frozen=True)
class _PairedCounts:
    """The number of rows that both versions, or only one, predict right."""

    rows: int
    both: int
    first: int  # only the first version
    second: int  # only the second version


def compare_metrics(
    labels: npt.NDArray[Any],
    first: npt.NDArray[Any],
    second: npt.NDArray[Any],
    probabilities: tuple[Probabilities, Probabilities] | None = None,
) -> list[MetricComparison]:
    """Return accuracy, balanced accuracy, log loss, and recall and precision by class.

    Parameters
    ----------
    labels, first, second
        The class names of the rows, and the predictions of two versions as class names, each of
        shape (rows,); at least one row.
    probabilities
        The probabilities of both versions. Log loss is left out if they are None, for a single row,
        and if a version lacks a class of the labels or returns NaN or infinity.

    Notes
    -----
    The p-values come from the exact two-sided McNemar test; for balanced accuracy and log loss, from
    the interval. Holm's method corrects all of them together: if two versions are equal, at most 5% of
    the comparisons call one of them better in any metric. The precisions of two versions count
    different rows, so they have no paired difference. The precision of a class that a version never
    predicts is undefined and left out.
    """
    ones, twos = first == labels, second == labels
    classes = sorted({*labels.tolist(), *first.tolist(), *second.tolist()})
    by_class = {name: _count_pairs(ones, twos, labels == name) for name in classes}
    present = {name: pairs for name, pairs in by_class.items() if pairs.rows}
    found = [
        _compare_shares("accuracy", _count_pairs(ones, twos, np.ones(len(labels), bool))),
        _compare_balanced_accuracy(list(present.values())),
    ]
    if probabilities is not None:
        found += _compare_log_loss(labels, *probabilities)
    for name in classes:
        if name in present:
            found.append(_compare_shares(f"recall of {name}", present[name], of_class=True))
        predicted = first == name, second == name
        if all(each.any() for each in predicted):
            one, two = (
                wilson(int(np.sum(right & each)), int(each.sum()))
                for right, each in zip((ones, twos), predicted, strict=True)
            )
            found.append(MetricComparison(f"precision of {name}", one, two, of_class=True))
    return correct_together(found)


def correct_together(found: Sequence[MetricComparison]) -> list[MetricComparison]:
    """Return the metrics with all their p-values corrected together by Holm's method."""
    adjusted = iter(holm([metric.p_value for metric in found if metric.p_value is not None]))
    return [
        metric if metric.p_value is None else replace(metric, adjusted_p_value=next(adjusted))
        for metric in found
    ]


def _count_pairs(
    ones: npt.NDArray[np.bool_], twos: npt.NDArray[np.bool_], among: npt.NDArray[np.bool_]
) -> _PairedCounts:
    return _PairedCounts(
        int(among.sum()),
        int(np.sum(ones & twos & among)),
        int(np.sum(ones & ~twos & among)),
        int(np.sum(twos & ~ones & among)),
    )


def _compare_shares(name: str, pairs: _PairedCounts, of_class: bool = False) -> MetricComparison:
    first, second = (wilson(pairs.both + alone, pairs.rows) for alone in (pairs.first, pairs.second))
    difference = paired_difference([pairs.first], [pairs.second], [pairs.rows])
    discordant = pairs.first + pairs.second
    p_value = float(binomtest(pairs.first, discordant).pvalue) if discordant else 1.0
    return MetricComparison(name, first, second, difference, p_value, of_class=of_class)


def _compare_balanced_accuracy(classes: Sequence[_PairedCounts]) -> MetricComparison:
    """Compare the mean of the recalls of the classes."""
    rows = [pairs.rows for pairs in classes]
    gained, lost = [pairs.first for pairs in classes], [pairs.second for pairs in classes]
    first, second = (
        mean_share([pairs.both + alone for pairs, alone in zip(classes, only, strict=True)], rows)
        for only in (gained, lost)
    )
    difference, p_value = paired_difference(gained, lost, rows), paired_p_value(gained, lost, rows)
    return MetricComparison("balanced accuracy", first, second, difference, p_value)


def _compare_log_loss(
    labels: npt.NDArray[Any], first: Probabilities, second: Probabilities
) -> Iterable[MetricComparison]:
    one, two = row_losses(labels, *first), row_losses(labels, *second)
    if one is None or two is None or len(labels) < 2:
        return []
    difference, p_value = log_loss_difference(one, two)
    compared = MetricComparison(
        "log loss", mean_log_loss(one), mean_log_loss(two), difference, p_value, less_is_better=True
    )
    return [compared]
