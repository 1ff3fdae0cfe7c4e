"""The figures of two versions on the same rows, each with its 95% interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

_RESAMPLES = 2_000
_LEVELS = [0.025, 0.975]


@dataclass(frozen=True)
class Estimate:
    """A value and its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Figure:
    """One figure of two versions; the difference is the first's less the second's, paired."""

    name: str
    first: Estimate
    second: Estimate
    difference: Estimate
    less_is_better: bool = False


@dataclass(frozen=True)
class _Resampled:
    """A figure of the rows, then of each resample; for a share of rows also its two counts."""

    values: npt.NDArray[np.float64]
    share: tuple[int, int] | None = None


def figures(
    labels: npt.NDArray[Any], first: npt.NDArray[Any], second: npt.NDArray[Any]
) -> list[Figure]:
    """Return accuracy, balanced accuracy, F1, and recall and precision by class.

    Parameters
    ----------
    labels, first, second
        The class of each row, and what two versions answered, as names, shape (rows,); at least
        one row.

    Notes
    -----
    Shares of rows have Wilson's interval, which is not empty at 0 and 1; means of shares and all
    differences have that of the bootstrap over the rows, whose seed is fixed. Rows of the same
    class and the same two answers are alike: a resample is a draw of how many there are of each
    kind, so that 100,000 rows cost no more than the kinds among them. Where a class is never
    answered precision has no value, and is left out.
    """
    classes, codes = np.unique(
        np.concatenate([labels, first, second]).astype(str), return_inverse=True
    )
    kinds, counts = np.unique(codes.reshape(3, -1), axis=1, return_counts=True)
    rows = len(labels)
    draws = np.random.default_rng(0).multinomial(rows, counts / rows, size=_RESAMPLES)
    weights = np.vstack([counts, draws])
    ones = _by_name(weights, kinds[0], kinds[1], classes)
    twos = _by_name(weights, kinds[0], kinds[2], classes)
    return [
        Figure(name, _estimate(one), _estimate(two), _estimate(_Resampled(one.values - two.values)))
        for name, one, two in ((name, ones[name], twos[name]) for name in ones)
        if np.isfinite(one.values[0]) and np.isfinite(two.values[0])
    ]


def _by_name(
    weights: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int64],
    answers: npt.NDArray[np.int64],
    classes: npt.NDArray[Any],
) -> dict[str, _Resampled]:
    """Return each figure for each row of weights, which say how often each kind of row stands."""
    codes = range(len(classes))
    truths = _counts(weights, [labels == code for code in codes])
    said = _counts(weights, [answers == code for code in codes])
    hits = _counts(weights, [(labels == code) & (answers == code) for code in codes])
    f1 = _shares(2 * hits, truths + said).values
    found = {
        "accuracy": _shares(hits.sum(axis=1), truths.sum(axis=1)),
        # A class that a resample misses counts in neither mean.
        "balanced accuracy": _Resampled(np.nanmean(_shares(hits, truths).values, axis=1)),
        "F1, mean of the classes": _Resampled(np.nanmean(f1, axis=1)),
    }
    for code, name in enumerate(classes):
        found[f"recall of {name}"] = _shares(hits[:, code], truths[:, code])
        found[f"precision of {name}"] = _shares(hits[:, code], said[:, code])
    return found


def _counts(
    weights: npt.NDArray[np.int64], choices: list[npt.NDArray[np.bool_]]
) -> npt.NDArray[np.int64]:
    return np.stack([weights[:, chosen].sum(axis=1) for chosen in choices], axis=1)


def _shares(part: npt.NDArray[np.int64], whole: npt.NDArray[np.int64]) -> _Resampled:
    values = np.full(part.shape, np.nan)
    np.divide(part, whole, out=values, where=whole > 0)
    return _Resampled(values, (int(part[0]), int(whole[0])) if part.ndim == 1 else None)


def log_loss(
    labels: npt.NDArray[Any],
    first: tuple[npt.NDArray[np.float64], tuple[str, ...]],
    second: tuple[npt.NDArray[np.float64], tuple[str, ...]],
) -> Figure | None:
    """Return the mean log loss of two versions; None if one does not know a class of the labels.

    Parameters
    ----------
    labels
        The class of each row, as names, shape (rows,).
    first, second
        The probabilities of each version, shape (rows, classes), and the names of its classes.
    """
    if not all(set(labels.tolist()) <= set(classes) for _, classes in (first, second)):
        return None
    losses = [_losses(labels, *each) for each in (first, second)]
    rng = np.random.default_rng(0)
    means = [[each.mean() for each in losses]]
    for _ in range(_RESAMPLES):
        chosen = rng.integers(0, len(labels), len(labels))
        means.append([each[chosen].mean() for each in losses])
    ones, twos = np.array(means).T
    one, two, difference = (_estimate(_Resampled(each)) for each in (ones, twos, ones - twos))
    return Figure("log loss", one, two, difference, less_is_better=True)


def _losses(
    labels: npt.NDArray[Any], probabilities: npt.NDArray[np.float64], classes: tuple[str, ...]
) -> npt.NDArray[np.float64]:
    place = {name: code for code, name in enumerate(classes)}
    given = probabilities[np.arange(len(labels)), [place[name] for name in labels.tolist()]]
    return -np.log(np.clip(given, np.finfo(float).eps, 1))


def _estimate(found: _Resampled) -> Estimate:
    value = float(found.values[0])
    if found.share is not None and found.share[1]:
        interval = binomtest(*found.share).proportion_ci(method="wilson")
        return Estimate(value, float(interval.low), float(interval.high))
    low, high = np.nanquantile(found.values[1:], _LEVELS)
    return Estimate(value, float(low), float(high))
