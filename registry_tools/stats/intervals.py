"""The metrics of two versions on the same rows, each with its 95% interval."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest, norm, t

_SIGNIFICANCE = 0.05
_Z = float(norm.ppf(1 - _SIGNIFICANCE / 2))


@dataclass(frozen=True)
class Estimate:
    """A value and its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class MetricComparison:
    """One metric of two versions; the difference is the first's less the second's, paired.

    `better` is the one that the rows show to be better, 0 or 1, None where they show neither. It is
    None as well where there is no paired difference.
    """

    name: str
    first: Estimate
    second: Estimate
    difference: Estimate | None
    better: int | None
    less_is_better: bool = False


@dataclass(frozen=True)
class _PairedCounts:
    """Rows by which of the two versions has them right."""

    rows: int
    both: int
    first: int  # only the first
    second: int

    @property
    def variance(self) -> float:
        """That of the difference of the two shares, by Bonett and Price: one row more of each."""
        rows = self.rows + 2
        one, two = (self.first + 1) / rows, (self.second + 1) / rows
        return (one + two - (one - two) ** 2) / rows


def compare_metrics(
    labels: npt.NDArray[Any], first: npt.NDArray[Any], second: npt.NDArray[Any]
) -> list[MetricComparison]:
    """Return accuracy, balanced accuracy, and recall and precision by class.

    Parameters
    ----------
    labels, first, second
        The class of each row, and the predictions of two versions, as names, shape (rows,); at
        least one row.

    Notes
    -----
    Shares of rows have Wilson's interval, their paired differences that of Bonett and Price: both
    hold for a few rows, and for shares near 0 and 1. The exact two-sided McNemar test decides
    which version is better. Balanced accuracy is the mean of independent shares: its variances
    are theirs. A precision of one version counts other rows than that of the other, so that there
    is no paired difference; where a class is never predicted there is none at all.
    """
    ones, twos = first == labels, second == labels
    classes = sorted({*labels.tolist(), *first.tolist(), *second.tolist()})
    by_class = {name: _count_pairs(ones, twos, labels == name) for name in classes}
    present = {name: pairs for name, pairs in by_class.items() if pairs.rows}
    found = [
        _compare_shares("accuracy", _count_pairs(ones, twos, np.ones(len(labels), bool))),
        _compare_balanced_accuracy(list(present.values())),
    ]
    for name in classes:
        if name in present:
            found.append(_compare_shares(f"recall of {name}", present[name]))
        predicted = first == name, second == name
        if all(each.any() for each in predicted):
            one, two = (
                wilson(int(np.sum(right & each)), int(each.sum()))
                for right, each in zip((ones, twos), predicted, strict=True)
            )
            found.append(MetricComparison(f"precision of {name}", one, two, None, None))
    return found


def _count_pairs(
    ones: npt.NDArray[np.bool_], twos: npt.NDArray[np.bool_], among: npt.NDArray[np.bool_]
) -> _PairedCounts:
    return _PairedCounts(
        int(among.sum()),
        int(np.sum(ones & twos & among)),
        int(np.sum(ones & ~twos & among)),
        int(np.sum(twos & ~ones & among)),
    )


def _compare_shares(name: str, pairs: _PairedCounts) -> MetricComparison:
    first, second = (wilson(pairs.both + alone, pairs.rows) for alone in (pairs.first, pairs.second))
    difference = _normal_interval(first.value - second.value, pairs.variance, -1)
    discordant = pairs.first + pairs.second
    chance = binomtest(pairs.first, discordant).pvalue if discordant else 1.0
    better = None if chance >= _SIGNIFICANCE else int(pairs.second > pairs.first)
    return MetricComparison(name, first, second, difference, better)


def _compare_balanced_accuracy(classes: list[_PairedCounts]) -> MetricComparison:
    """Return the mean of the recalls of some classes."""
    count = len(classes)
    means, estimates = [], []
    for place in (0, 1):
        right = [pairs.both + (pairs.first, pairs.second)[place] for pairs in classes]
        means.append(sum(r / pairs.rows for r, pairs in zip(right, classes, strict=True)) / count)
        shares = [(r + 1) / (p.rows + 2) for r, p in zip(right, classes, strict=True)]
        variance = sum(s * (1 - s) / (p.rows + 2) for s, p in zip(shares, classes, strict=True))
        # Around what two rows more of each class would make of it, one right and one wrong.
        about = _normal_interval(sum(shares) / count, variance / count**2, 0)
        low, high = min(about.low, means[place]), max(about.high, means[place])
        estimates.append(Estimate(means[place], low, high))
    variance = sum(pairs.variance for pairs in classes) / count**2
    difference = _normal_interval(means[0] - means[1], variance, -1)
    first, second = estimates
    better = _clearly_better(difference)
    return MetricComparison("balanced accuracy", first, second, difference, better)


def wilson(part: int, whole: int) -> Estimate:
    """Return a share of some rows with Wilson's interval."""
    interval = binomtest(part, whole).proportion_ci(method="wilson")
    return Estimate(part / whole, float(interval.low), float(interval.high))


def _normal_interval(value: float, variance: float, least: float) -> Estimate:
    reach = _Z * math.sqrt(variance)
    return Estimate(value, max(least, value - reach), min(1.0, value + reach))


def _clearly_better(difference: Estimate, less_is_better: bool = False) -> int | None:
    """Return which of two an interval shows to be better; None if it shows neither."""
    if difference.low <= 0 <= difference.high:
        return None
    return int((difference.low > 0) == less_is_better)


def compare_log_loss(
    labels: npt.NDArray[Any],
    first: tuple[npt.NDArray[np.float64], tuple[str, ...]],
    second: tuple[npt.NDArray[np.float64], tuple[str, ...]],
) -> MetricComparison | None:
    """Return the mean log loss of two versions, with Student's intervals.

    None if a version lacks a class of the labels or gives NaN or infinity, or for a single row.

    Parameters
    ----------
    labels
        The class of each row, as names, shape (rows,).
    first, second
        The probabilities of each version, shape (rows, classes), and the names of its classes.
    """
    known = all(set(labels.tolist()) <= set(classes) for _, classes in (first, second))
    if not known or len(labels) < 2:
        return None
    losses = [_log_losses(labels, *each) for each in (first, second)]
    if not np.isfinite(losses).all():
        return None
    one, two, difference = (_mean(each) for each in (*losses, losses[0] - losses[1]))
    better = _clearly_better(difference, less_is_better=True)
    return MetricComparison("log loss", one, two, difference, better, less_is_better=True)


def _log_losses(
    labels: npt.NDArray[Any], probabilities: npt.NDArray[np.float64], classes: tuple[str, ...]
) -> npt.NDArray[np.float64]:
    place = {name: code for code, name in enumerate(classes)}
    given = probabilities[np.arange(len(labels)), [place[name] for name in labels.tolist()]]
    return -np.log(np.clip(given, np.finfo(float).eps, 1))


def _mean(values: npt.NDArray[np.float64]) -> Estimate:
    rows = len(values)
    mean = float(values.mean())
    reach = float(t.ppf(1 - _SIGNIFICANCE / 2, rows - 1) * values.std(ddof=1) / math.sqrt(rows))
    return Estimate(mean, mean - reach, mean + reach)
