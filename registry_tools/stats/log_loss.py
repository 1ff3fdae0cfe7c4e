"""The log loss of two versions on the same rows, with 95% intervals.

Most losses of rows are small and a few are large, and a sample without a wrong prediction contains no
large loss. The upper limits therefore add one row on which the versions are wrong.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student

from registry_tools.stats.intervals import SIGNIFICANCE, Estimate

_Floats = npt.NDArray[np.float64]
_LEAST = float(np.finfo(float).eps)  # a probability of 0 counts as this, as in scikit-learn


@dataclass(frozen=True)
class RowLosses:
    """The losses of one version; `cost` is its mean loss if its likeliest class were always wrong."""

    values: _Floats  # shape (rows,)
    cost: float


def row_losses(
    labels: npt.NDArray[Any], probabilities: _Floats, classes: tuple[str, ...]
) -> RowLosses | None:
    """Return the losses of the rows; None if a label is not a class, or a probability is not finite.

    Parameters
    ----------
    labels
        The class names of the rows, shape (rows,).
    probabilities, classes
        The probabilities, shape (rows, classes), and the names of the classes in column order.
    """
    place = {name: code for code, name in enumerate(classes)}
    if not set(labels.tolist()) <= set(place) or not np.isfinite(probabilities).all():
        return None
    given = probabilities[np.arange(len(labels)), [place[name] for name in labels.tolist()]]
    wrong = 1 - probabilities.max(axis=1)
    values, costs = (0.0 - np.log(np.clip(each, _LEAST, 1)) for each in (given, wrong))
    return RowLosses(values, float(costs.mean()))


def mean_log_loss(losses: RowLosses) -> Estimate:
    """Return the mean loss with its interval, which does not reach below 0; needs at least two rows.

    The lower limit is Student's on the logarithmic scale. The upper limit is Student's with one more
    row, a wrong one.
    """
    mean, _ = _student(losses.values)
    low = mean.value * math.exp(1 - mean.high / mean.value) if mean.value > 0 else 0.0
    worst = max(losses.cost, float(losses.values.max()))
    with_wrong_row, _ = _student(np.append(losses.values, worst))
    return Estimate(mean.value, low, with_wrong_row.high)


def log_loss_difference(first: RowLosses, second: RowLosses) -> tuple[Estimate, float]:
    """Return the mean difference on the same rows and its two-sided p-value; needs at least two rows.

    The interval covers two intervals of Student's: of the rows, and of the rows and one more on which
    both versions are wrong. The p-value is the larger one of both.
    """
    differences = first.values - second.values
    plain, p_value = _student(differences)
    more, other_p_value = _student(np.append(differences, first.cost - second.cost))
    interval = Estimate(plain.value, min(plain.low, more.low), max(plain.high, more.high))
    return interval, max(p_value, other_p_value) if plain.value * more.value > 0 else 1.0


def _student(values: _Floats) -> tuple[Estimate, float]:
    """Return the mean with Student's interval, and the two-sided p-value of a mean of zero."""
    freedom = len(values) - 1
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values))
    reach = float(student.ppf(1 - SIGNIFICANCE / 2, freedom)) * error
    p_value = 2 * float(student.sf(abs(mean) / error, freedom)) if error > 0 else float(mean == 0)
    return Estimate(mean, mean - reach, mean + reach), p_value
