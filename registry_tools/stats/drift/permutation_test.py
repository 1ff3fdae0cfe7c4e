"""Test whether a metric is worse on some rows than on others, by random permutations of the rows."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from registry_tools.stats.drift.drift_tests import PERMUTATION, DriftTest
from registry_tools.stats.metric import Metric, Outcomes

_PERMUTATIONS, _MOST_ROWS = 499, 5_000  # rows of one side that the test reads


def permutation_test(metric: Metric, before: Outcomes, current: Outcomes, target: str) -> DriftTest | None:
    """Test whether a metric is worse now than before, with a one-sided permutation test.

    Each permutation draws at random which outcomes are the current ones. The distribution of the difference
    is approximated by its mean, standard deviation and skewness, so that a p-value can be small.

    Parameters
    ----------
    metric
        The metric.
    before, current
        The outcomes of both sides; of more than 5,000 rows, 5,000 are drawn.
    target
        The name of the metric in the result.

    Returns
    -------
    DriftTest or None
        None if the metric is undefined for the rows, or for more than half of the permutations.
    """
    random = np.random.default_rng(0)
    sides = [_sample(side, random) for side in (before, current)]
    size = len(sides[0].labels)
    probabilities = [side.probabilities for side in sides if side.probabilities is not None]
    pooled = Outcomes(
        np.concatenate([side.labels for side in sides]),
        np.concatenate([side.predicted for side in sides]),
        np.concatenate(probabilities) if len(probabilities) == len(sides) else None,
        before.classes,
    )
    sign = 1 if metric.less_is_better else -1

    def worse_by(order: np.ndarray) -> float:
        later, earlier = (metric.compute(pooled.take(side)) for side in (order[size:], order[:size]))
        return sign * (later - earlier)

    rows = np.arange(len(pooled.labels))
    observed = worse_by(rows)
    drawn = np.array([worse_by(random.permutation(rows)) for _ in range(_PERMUTATIONS)])
    drawn = drawn[np.isfinite(drawn)]
    if not math.isfinite(observed) or len(drawn) < _PERMUTATIONS / 2 or not drawn.std():
        return None
    z = (observed - drawn.mean()) / drawn.std()
    p_value = float(stats.pearson3.sf(z, float(stats.skew(drawn))))
    return DriftTest(target, PERMUTATION, observed, p_value)


def _sample(outcomes: Outcomes, random: np.random.Generator) -> Outcomes:
    rows = len(outcomes.labels)
    return outcomes if rows <= _MOST_ROWS else outcomes.take(random.choice(rows, _MOST_ROWS, replace=False))
