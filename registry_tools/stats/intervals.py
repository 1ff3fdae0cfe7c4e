"""The figures of two versions on the same rows, each with its 95% interval."""

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
class Figure:
    """One figure of two versions; the difference is the first's less the second's, paired.

    `better` is the one that the rows show to be better, 0 or 1, None where they show neither. It is
    None as well where there is no paired difference to tell by.
    """

    name: str
    first: Estimate
    second: Estimate
    difference: Estimate | None
    better: int | None
    less_is_better: bool = False


@dataclass(frozen=True)
class _Pairs:
    """Rows by which of the two versions has them right."""

    rows: int
    both: int
    first: int  # it alone
    second: int

    @property
    def variance(self) -> float:
        """That of the difference of the two shares, by Bonett and Price: a row more of each."""
        rows = self.rows + 2
        one, two = (self.first + 1) / rows, (self.second + 1) / rows
        return (one + two - (one - two) ** 2) / rows


def figures(
    labels: npt.NDArray[Any], first: npt.NDArray[Any], second: npt.NDArray[Any]
) -> list[Figure]:
    """Return accuracy, balanced accuracy, and recall and precision by class.

    Parameters
    ----------
    labels, first, second
        The class of each row, and what two versions answered, as names, shape (rows,); at least
        one row.

    Notes
    -----
    Shares of rows have Wilson's interval, their paired differences that of Bonett and Price: both
    hold for a few rows, and for shares near 0 and 1. Which version is better is told by the exact
    two-sided McNemar test. Balanced accuracy is the mean of independent shares: its variances are
    theirs. A precision of one version counts other rows than that of the other, so that there is
    no paired difference; where a class is never answered there is none at all.
    """
    ones, twos = first == labels, second == labels
    classes = sorted({*labels.tolist(), *first.tolist(), *second.tolist()})
    by_class = {name: _pairs(ones, twos, labels == name) for name in classes}
    present = {name: pairs for name, pairs in by_class.items() if pairs.rows}
    found = [
        _paired("accuracy", _pairs(ones, twos, np.ones(len(labels), bool))),
        _balanced(list(present.values())),
    ]
    for name in classes:
        if name in present:
            found.append(_paired(f"recall of {name}", present[name]))
        said = first == name, second == name
        if all(each.any() for each in said):
            one, two = (
                wilson(int(np.sum(right & each)), int(each.sum()))
                for right, each in zip((ones, twos), said, strict=True)
            )
            found.append(Figure(f"precision of {name}", one, two, None, None))
    return found


def _pairs(
    ones: npt.NDArray[np.bool_], twos: npt.NDArray[np.bool_], among: npt.NDArray[np.bool_]
) -> _Pairs:
    return _Pairs(
        int(among.sum()),
        int(np.sum(ones & twos & among)),
        int(np.sum(ones & ~twos & among)),
        int(np.sum(twos & ~ones & among)),
    )


def _paired(name: str, pairs: _Pairs) -> Figure:
    first, second = (
        wilson(pairs.both + alone, pairs.rows) for alone in (pairs.first, pairs.second)
    )
    difference = _around(first.value - second.value, pairs.variance, -1)
    unlike = pairs.first + pairs.second
    chance = binomtest(pairs.first, unlike).pvalue if unlike else 1.0
    better = None if chance >= _SIGNIFICANCE else int(pairs.second > pairs.first)
    return Figure(name, first, second, difference, better)


def _balanced(classes: list[_Pairs]) -> Figure:
    """Return the mean of the recalls of some classes."""
    count = len(classes)
    means, estimates = [], []
    for place in (0, 1):
        right = [pairs.both + (pairs.first, pairs.second)[place] for pairs in classes]
        means.append(sum(r / pairs.rows for r, pairs in zip(right, classes, strict=True)) / count)
        shares = [(r + 1) / (p.rows + 2) for r, p in zip(right, classes, strict=True)]
        variance = sum(s * (1 - s) / (p.rows + 2) for s, p in zip(shares, classes, strict=True))
        # Around what two rows more of each class would make of it, one right and one wrong.
        about = _around(sum(shares) / count, variance / count**2, 0)
        low, high = min(about.low, means[place]), max(about.high, means[place])
        estimates.append(Estimate(means[place], low, high))
    variance = sum(pairs.variance for pairs in classes) / count**2
    difference = _around(means[0] - means[1], variance, -1)
    first, second = estimates
    return Figure("balanced accuracy", first, second, difference, _clear(difference))


def wilson(part: int, whole: int) -> Estimate:
    """Return a share of some rows with Wilson's interval."""
    interval = binomtest(part, whole).proportion_ci(method="wilson")
    return Estimate(part / whole, float(interval.low), float(interval.high))


def _around(value: float, variance: float, least: float) -> Estimate:
    reach = _Z * math.sqrt(variance)
    return Estimate(value, max(least, value - reach), min(1.0, value + reach))


def _clear(difference: Estimate, less_is_better: bool = False) -> int | None:
    """Return which of two an interval shows to be better; None if it shows neither."""
    if difference.low <= 0 <= difference.high:
        return None
    return int((difference.low > 0) == less_is_better)


def log_loss(
    labels: npt.NDArray[Any],
    first: tuple[npt.NDArray[np.float64], tuple[str, ...]],
    second: tuple[npt.NDArray[np.float64], tuple[str, ...]],
) -> Figure | None:
    """Return the mean log loss of two versions, with Student's intervals.

    None if one does not know a class of the labels or gives what is no number, and of one row.

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
    one, two = (_losses(labels, *each) for each in (first, second))
    if not np.isfinite(one).all() or not np.isfinite(two).all():
        return None
    difference = _mean(one - two)
    better = _clear(difference, less_is_better=True)
    return Figure("log loss", _mean(one), _mean(two), difference, better, less_is_better=True)


def _losses(
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
