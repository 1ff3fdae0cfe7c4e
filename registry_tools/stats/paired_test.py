"""Test whether the difference in accuracy of two versions on the same rows can be chance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from registry_tools.stats.intervals import Z_ONE_SIDED, paired_difference

POWER = 0.8


@dataclass(frozen=True)
class PairedComparison:
    """The paired comparison of a candidate and a champion on the same rows.

    `difference` is the candidate's accuracy minus the champion's. `low` and `high` are its 95% interval,
    and `bound` is its one-sided 95% lower bound, both by Tango's method. `p_worse` and `p_better` come
    from the exact one-sided McNemar test.
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
    """Compare the predictions of two versions for the same rows.

    Parameters
    ----------
    labels, candidate, champion
        The labels and the predictions of both versions, as class names, each of shape (rows,).
    """
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
    """Return the comparison for counts of rows that both versions, or only one, predict right.

    There must be at least one row.
    """
    from scipy.stats import binomtest  # takes half a second to import, which `show` does not need

    gained, lost = only_candidate_right, only_champion_right
    interval = paired_difference([gained], [lost], [rows])
    discordant = gained + lost

    def p_value(successes: int) -> float:
        return binomtest(successes, discordant, alternative="greater").pvalue if discordant else 1.0

    return PairedComparison(
        rows=rows,
        candidate_accuracy=(both_right + gained) / rows,
        champion_accuracy=(both_right + lost) / rows,
        only_candidate_right=gained,
        only_champion_right=lost,
        difference=interval.value,
        low=interval.low,
        high=interval.high,
        bound=paired_difference([gained], [lost], [rows], Z_ONE_SIDED).low,
        p_worse=p_value(lost),
        p_better=p_value(gained),
    )


def rows_needed(compared: PairedComparison, margin: float) -> int:
    """Return the number of rows at which an equal candidate passes the rule `non-inferior` in 80% of cases.

    The estimate uses the observed rate of disagreement and the normal approximation. Its minimum is the
    number of rows for two versions that never disagree, at which the bound is -z²/(rows + z²).
    """
    disagreement = (compared.only_candidate_right + compared.only_champion_right) / compared.rows
    always = math.floor(Z_ONE_SIDED**2 * (1 - margin) / margin) + 1
    return max(always, math.ceil(disagreement * ((Z_ONE_SIDED + NormalDist().inv_cdf(POWER)) / margin) ** 2))
