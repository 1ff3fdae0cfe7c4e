"""The mean losses of two versions on the same rows, such as the squared error or the log loss.

Student's t holds its error rates where the bootstrap is too sure of itself: with 30 rows and heavy tails,
the bootstrap's tests at 5% reject 6 to 11% of equal versions (docs/explanation/promotion-statistics.md).

Most log losses of rows are small and a few are large, and a sample without a wrong prediction contains no
large loss. The limits of the log loss therefore also hold with one more row on which the versions are wrong.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from registry_tools.stats.intervals import SIGNIFICANCE, Estimate
from registry_tools.stats.metric import LEAST_PROBABILITY, Outcomes, label_losses

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RowLosses:
    """The log losses of one version; `cost` is its mean loss if its likeliest class were always wrong."""

    values: _Floats  # shape (rows,)
    cost: float


@dataclass(frozen=True)
class LossDifference:
    """The mean loss of the candidate minus the champion's, in units of another mean, such as the champion's.

    `low` and `high` are the 95% interval, and `upper` is the one-sided 95% limit. The p-values are
    one-sided and do not depend on the unit.
    """

    value: float
    low: float
    high: float
    upper: float
    p_worse: float
    p_better: float


def loss_difference(candidate: _Floats, champion: _Floats, unit: _Floats) -> LossDifference:
    """Compare the losses of two versions, in units of the mean of `unit`.

    Parameters
    ----------
    candidate, champion
        The loss of each row, shape (rows,); at least two rows.
    unit
        Ones for the difference itself, the champion's losses for the relative difference; shape (rows,),
        of a mean above 0.

    Notes
    -----
    The interval is Fieller's: it contains each ratio r for which Student's t does not reject that the
    mean of `candidate - champion - r * unit` is 0. If the unit itself is too uncertain for that, its mean
    counts as known.
    """
    from scipy.stats import t as student  # takes half a second to import, which `show` does not need

    difference = candidate - champion
    freedom = len(difference) - 1
    two_sided, one_sided = student.ppf([1 - SIGNIFICANCE / 2, 1 - SIGNIFICANCE], freedom)
    mean, error = float(difference.mean()), float(difference.std(ddof=1)) / math.sqrt(len(difference))
    if error > 0:
        p_worse, p_better = (float(student.sf(side * mean / error, freedom)) for side in (1, -1))
    else:  # the same difference on each row
        p_worse, p_better = float(mean <= 0), float(mean >= 0)
    low, high = _limits(difference, unit, float(two_sided))
    _, upper = _limits(difference, unit, float(one_sided))
    return LossDifference(mean / float(unit.mean()), low, high, upper, p_worse, p_better)


def mean_loss(losses: _Floats) -> Estimate:
    """Return the mean of losses of rows with Student's interval, which does not reach below 0."""
    found = loss_difference(losses, np.zeros_like(losses), np.ones_like(losses))
    return Estimate(found.value, max(0.0, found.low), found.high)


def _limits(difference: _Floats, unit: _Floats, reach: float) -> tuple[float, float]:
    """Return the limits of the ratio of the means, `reach` standard errors away."""
    mean, scale = float(difference.mean()), float(unit.mean())
    (own, shared), (_, other) = (np.cov(difference, unit) * reach**2 / len(unit)).tolist()
    # The limits are the roots of a r² - 2 b r + c with c = mean² - own.
    a, b = scale**2 - other, mean * scale - shared
    if a <= 0:
        return (mean - math.sqrt(own)) / scale, (mean + math.sqrt(own)) / scale
    # b² - a c, without the terms that cancel
    root = math.sqrt(max(0.0, own * a + shared**2 - 2 * mean * scale * shared + mean**2 * other))
    return (b - root) / a, (b + root) / a


def widest(found: list[LossDifference]) -> LossDifference:
    """Return the widest limits and the largest p-values of several comparisons, with the first value."""
    return LossDifference(
        found[0].value,
        min(each.low for each in found),
        max(each.high for each in found),
        max(each.upper for each in found),
        max(each.p_worse for each in found),
        max(each.p_better for each in found),
    )


def row_losses(outcomes: Outcomes) -> RowLosses | None:
    """Return the log losses of rows with probabilities.

    Return None if a label is not a class of the model, or a probability is not finite.
    """
    values, probabilities = label_losses(outcomes), np.asarray(outcomes.probabilities)
    if values is None or not np.isfinite(probabilities).all():
        return None
    wrong = np.clip(1 - probabilities.max(axis=1), LEAST_PROBABILITY, 1)
    return RowLosses(values, float(0.0 - np.log(wrong).mean()))


def mean_log_loss(losses: RowLosses) -> Estimate:
    """Return the mean log loss with its interval; needs at least two rows.

    The lower limit is Student's on the logarithmic scale. The upper limit is Student's with one more
    row, a wrong one.
    """
    mean = mean_loss(losses.values)
    low = mean.value * math.exp(1 - mean.high / mean.value) if mean.value > 0 else 0.0
    worst = max(losses.cost, float(losses.values.max()))
    return Estimate(mean.value, low, mean_loss(np.append(losses.values, worst)).high)
