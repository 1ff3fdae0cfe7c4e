"""95% intervals for shares of rows, and for the paired difference between two versions' shares.

Each function takes counts for one or several groups of rows. Accuracy and the recall of a class have
one group. Balanced accuracy, the mean of the recalls, has one group for each class. All intervals stay
inside the range of their metric and contain the observed value.
`docs/decisions/0013-one-interval.md` gives the reasons.
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
    """Return the share `part / whole` with Wilson's interval."""
    return mean_share([part], [whole])


def mean_share(right: Counts, rows: Counts) -> Estimate:
    """Return the mean of the groups' shares, with Wilson's interval.

    Parameters
    ----------
    right, rows
        The number of right rows and of all rows in each group; at least one row in each.

    Notes
    -----
    Wilson's interval needs a number of rows. For one group it is the number of its rows. For several
    groups it is the number of rows at which one share has the variance of the mean. This variance adds
    one right and one wrong row to each group, so that a group of a few rows, all right, does not count
    as certain.
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
    """Return the mean difference between two versions' shares on the same rows, with Tango's interval.

    Parameters
    ----------
    gained, lost, rows
        For each group, the number of rows that only the first version predicts right, that only the
        second predicts right, and of all rows; at least one row in each.
    z
        The number of standard deviations of the interval. With `Z_ONE_SIDED`, the lower limit is the
        one-sided 95% bound.

    Notes
    -----
    Tango's interval contains all differences that the score test does not reject. The intervals of
    several groups are combined through the squared distances of their limits from the differences (the
    MOVER method of Zou and Donner).
    """
    pairs, counts = np.array([gained, lost], dtype=float), np.asarray(rows, dtype=float)
    differences = (pairs[0] - pairs[1]) / counts
    # Exchange the versions: the upper limit is minus the lower limit of the opposite difference.
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
        # The most likely share of rows that only the second predicts right, given the tested difference.
        linear = (2 * rows - gained + lost) * tested - gained - lost
        root = np.sqrt(np.maximum(linear**2 + 8 * rows * lost * tested * (1 - tested), 0))
        variance = rows * ((root - linear) / (2 * rows) + tested * (1 - tested))
        rejected = gained - lost - rows * tested > z * np.sqrt(np.maximum(variance, 0))
        low, high = np.where(rejected, tested, low), np.where(rejected, high, tested)
    return low


def paired_p_value(gained: Counts, lost: Counts, rows: Counts) -> float:
    """Return the two-sided p-value: the level at which the interval of the difference reaches zero."""
    from scipy.optimize import brentq  # takes half a second to import, which `show` does not need

    value = paired_difference(gained, lost, rows).value
    if value == 0:
        return 1.0
    if value < 0:
        gained, lost = lost, gained

    def limit(z: float) -> float:
        return paired_difference(gained, lost, rows, z).low

    reached = brentq(limit, 0.0, _Z_MOST, xtol=1e-6) if limit(_Z_MOST) < 0 else _Z_MOST
    return math.erfc(reached / math.sqrt(2))
