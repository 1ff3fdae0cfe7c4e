"""95% intervals of shares of rows, and of the paired difference of two versions' shares.

Each takes one or several groups of rows: one for accuracy or the recall of a class, one a class for
balanced accuracy, which is the mean of the recalls. All stay inside the range of their metric and
contain the observed value. `docs/decisions/0013-one-interval.md` gives the reasons.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Counts = Sequence[int]
_Floats = npt.NDArray[np.float64]

SIGNIFICANCE = 0.05
Z_TWO_SIDED = NormalDist().inv_cdf(1 - SIGNIFICANCE / 2)
Z_ONE_SIDED = NormalDist().inv_cdf(1 - SIGNIFICANCE)
_Z_MOST = 12.0  # a p-value of 4e-33
_BISECTIONS = 40  # to 12 digits


@dataclass(frozen=True)
class Estimate:
    """A value and its 95% interval."""

    value: float
    low: float
    high: float


def wilson(part: int, whole: int) -> Estimate:
    """Return a share of some rows with Wilson's interval."""
    return mean_share([part], [whole])


def mean_share(right: Counts, rows: Counts) -> Estimate:
    """Return the mean of the shares of groups of rows, with Wilson's interval.

    Parameters
    ----------
    right, rows
        Rows that count, and all rows, by group; at least one row in each.

    Notes
    -----
    For several groups it is the interval for so many rows as give one share the variance that the
    mean has. That variance counts one row right and one row wrong more in each group, so that a group
    of a few rows, all right, is not certain. For one group the number is that of its rows.
    """
    given, counts = np.asarray(right, dtype=float), np.asarray(rows, dtype=float)
    value = float(np.mean(given / counts))
    shares = (given + 1) / (counts + 2)
    variance = float(np.sum(shares * (1 - shares) / counts)) / len(counts) ** 2
    effective_rows = float(shares.mean() * (1 - shares.mean())) / variance
    z = Z_TWO_SIDED**2 / effective_rows
    centre = (value + z / 2) / (1 + z)
    reach = math.sqrt(z * (value * (1 - value) + z / 4)) / (1 + z)
    return Estimate(value, max(0.0, min(value, centre - reach)), min(1.0, max(value, centre + reach)))


def paired_difference(gained: Counts, lost: Counts, rows: Counts, z: float = Z_TWO_SIDED) -> Estimate:
    """Return the mean difference of two versions' shares on the same rows, with Tango's interval.

    Parameters
    ----------
    gained, lost, rows
        Rows that only the first version has right, that only the second has right, and all rows, by
        group; at least one row in each.
    z
        How many standard deviations the interval reaches; with `Z_ONE_SIDED` its lower limit is the
        one-sided 95% bound.

    Notes
    -----
    Tango's interval has all differences that the score test does not reject. Those of several groups
    are combined by the distances of their limits, each squared (Zou and Donner's MOVER).
    """
    pairs, counts = np.array([gained, lost], dtype=float), np.asarray(rows, dtype=float)
    differences = (pairs[0] - pairs[1]) / counts
    # The upper limit is the lower one of the second version less the first.
    lows, highs = _lower_limits(pairs, pairs[::-1], counts, z) * np.array([[1], [-1]])
    value, groups = float(differences.mean()), len(counts)
    below = math.sqrt(float(np.sum((differences - lows) ** 2))) / groups
    above = math.sqrt(float(np.sum((highs - differences) ** 2))) / groups
    return Estimate(value, max(-1.0, value - below), min(1.0, value + above))


def _lower_limits(gained: _Floats, lost: _Floats, rows: _Floats, z: float) -> _Floats:
    """Return the smallest difference in each group that the score test does not reject."""
    observed = (gained - lost) / rows
    low, high = np.full_like(observed, -1.0), observed
    for _ in range(_BISECTIONS):
        tested = (low + high) / 2
        # The most likely share of rows that only the second has right, given the tested difference.
        linear = (2 * rows - gained + lost) * tested - gained - lost
        root = np.sqrt(np.maximum(linear**2 + 8 * rows * lost * tested * (1 - tested), 0))
        variance = rows * ((root - linear) / (2 * rows) + tested * (1 - tested))
        rejected = gained - lost - rows * tested > z * np.sqrt(np.maximum(variance, 0))
        low, high = np.where(rejected, tested, low), np.where(rejected, high, tested)
    return low


def paired_p_value(gained: Counts, lost: Counts, rows: Counts) -> float:
    """Return the two-sided p-value of the interval: the level at which it reaches zero."""
    from scipy.optimize import brentq  # half a second, which `show` need not wait for

    value = paired_difference(gained, lost, rows).value
    if value == 0:
        return 1.0
    if value < 0:
        gained, lost = lost, gained

    def limit(z: float) -> float:
        return paired_difference(gained, lost, rows, z).low

    reached = brentq(limit, 0.0, _Z_MOST, xtol=1e-6) if limit(_Z_MOST) < 0 else _Z_MOST
    return math.erfc(reached / math.sqrt(2))
