"""The paired test of two versions on the same rows: is their difference chance?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

SIGNIFICANCE = 0.05
_RESAMPLES = 10_000


@dataclass(frozen=True)
class PairedComparison:
    """A candidate and a champion on the same rows, paired.

    `difference` is the candidate's accuracy less the champion's, `low` and `high` its 95% interval
    and `bound` its one-sided 95% lower bound, both from the paired bootstrap; `p_worse` and
    `p_better` are those of the exact one-sided McNemar test.
    """

    rows: int
    candidate_accuracy: float
    champion_accuracy: float
    only_candidate_right: int
    only_champion_right: int
    difference: float
    low: float
    high: float
    bound: float
    p_worse: float
    p_better: float

    def metrics(self) -> dict[str, float]:
        """Return the values to log, by name."""
        return {name: float(value) for name, value in vars(self).items()}


def compare_predictions(
    labels: npt.NDArray[Any], candidate: npt.NDArray[Any], champion: npt.NDArray[Any]
) -> PairedComparison:
    """Compare two versions on the same rows; labels and predictions as names, shape (rows,)."""
    right, champion_right = candidate == labels, champion == labels
    return compare_counts(
        rows=len(labels),
        only_candidate_right=int(np.sum(right & ~champion_right)),
        only_champion_right=int(np.sum(champion_right & ~right)),
        both_right=int(np.sum(right & champion_right)),
    )


def compare_counts(
    rows: int, only_candidate_right: int, only_champion_right: int, both_right: int
) -> PairedComparison:
    """Return the comparison of paired counts; at least one row.

    A resample of the rows is a draw from the multinomial of the three ways in which a row can
    count, so none is made row by row. The seed is fixed: the same rows give the same verdict.
    """
    from scipy.stats import binomtest  # half a second, which `show` need not wait for

    gained, lost = only_candidate_right, only_champion_right
    shares = np.array([gained, lost, rows - gained - lost]) / rows
    draws = np.random.default_rng(0).multinomial(rows, shares, size=_RESAMPLES)
    low, bound, high = np.quantile((draws[:, 0] - draws[:, 1]) / rows, [0.025, 0.05, 0.975])
    discordant = gained + lost

    def p_value(successes: int) -> float:
        return binomtest(successes, discordant, alternative="greater").pvalue if discordant else 1.0

    return PairedComparison(
        rows=rows,
        candidate_accuracy=(both_right + gained) / rows,
        champion_accuracy=(both_right + lost) / rows,
        only_candidate_right=gained,
        only_champion_right=lost,
        difference=(gained - lost) / rows,
        low=float(low),
        high=float(high),
        bound=float(bound),
        p_worse=p_value(lost),
        p_better=p_value(gained),
    )


def minimum_rows(margin: float) -> int:
    """Return how many rows hold, with 95% probability, an event of one row in `1 / margin`."""
    return math.ceil(math.log(SIGNIFICANCE) / math.log(1 - margin))


def rows_needed(compared: PairedComparison, margin: float) -> int:
    """Return how many rows show, in four of five cases, that an equal candidate is not inferior.

    At the observed rate of disagreement, by the normal approximation, one-sided at 95%.
    """
    disagreement = (compared.only_candidate_right + compared.only_champion_right) / compared.rows
    return max(minimum_rows(margin), math.ceil(disagreement * ((1.645 + 0.842) / margin) ** 2))
