"""Intervals of shares and of their paired difference: known values, ranges, and that 95% means 95%."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.stats import binomtest, chi2

from registry_tools.stats.intervals import (
    Z_ONE_SIDED,
    Z_TWO_SIDED,
    Estimate,
    mean_share,
    paired_difference,
    paired_p_value,
    wilson,
)

SIMULATIONS = 1_000


def check_coverage(found: list[Estimate], true: float, least: float = 0.95, most: float = 0.95) -> None:
    """The true value lies inside in `least` to `most` of the cases, within 3 standard errors."""
    inside = np.mean([each.low - 1e-9 <= true <= each.high + 1e-9 for each in found])
    error = 3 * np.sqrt(0.95 * 0.05 / len(found))
    assert least - error <= inside <= most + error, inside


@pytest.mark.parametrize("rows", [1, 7, 30, 299])
def test_a_share_has_the_wilson_interval_of_scipy(rows: int) -> None:
    for part in {0, 1, rows // 2, rows - 1, rows}:
        known = binomtest(part, rows).proportion_ci(method="wilson")
        found = wilson(part, rows)
        assert (found.low, found.high) == pytest.approx((known.low, known.high), abs=1e-12)
        assert found.low <= found.value == part / rows <= found.high


def test_a_paired_difference_has_the_interval_that_is_published() -> None:
    # Airway responsiveness of 21 children: Fagerland, Lydersen and Laake, Stat. Med. 33 (2014), table 5.
    found = paired_difference([1], [7], [21])
    assert found.value == pytest.approx(-0.286, abs=0.0005)
    assert (found.low, found.high) == pytest.approx((-0.517, -0.026), abs=0.0005)


def test_two_versions_that_never_disagree_on_few_rows_are_not_certainly_equal() -> None:
    for rows, z in ((30, Z_TWO_SIDED), (268, Z_ONE_SIDED)):
        found = paired_difference([0], [0], [rows], z)
        assert (found.low, found.high) == pytest.approx((-(z**2) / (rows + z**2), z**2 / (rows + z**2)))


@pytest.mark.parametrize("rows", [[1], [4], [2, 3], [1, 1, 2]])
def test_every_interval_stays_in_its_range_and_contains_the_observed_value(rows: list[int]) -> None:
    pairs = [[(a, b) for a in range(n + 1) for b in range(n + 1 - a)] for n in rows]
    for counts in product(*pairs):
        gained, lost = [a for a, _ in counts], [b for _, b in counts]
        difference, share = paired_difference(gained, lost, rows), mean_share(gained, rows)
        assert -1 <= difference.low <= difference.value <= difference.high <= 1
        assert 0 <= share.low <= share.value <= share.high <= 1
        assert share.low < share.high
        assert difference.low < difference.high
        mirrored = paired_difference(lost, gained, rows)
        assert (mirrored.low, mirrored.high) == pytest.approx((-difference.high, -difference.low))


def test_a_lower_bound_leaves_out_five_percent_on_one_side_only() -> None:
    rng = np.random.default_rng(5)
    # 2 points worse, with a disagreement on a tenth of the rows.
    draws = rng.multinomial(300, [0.04, 0.06, 0.9], size=SIMULATIONS).tolist()
    bounds = [paired_difference([a], [b], [300], Z_ONE_SIDED).low for a, b, _ in draws]
    assert np.mean(np.array(bounds) <= -0.02) == pytest.approx(0.95, abs=0.021)


@pytest.mark.parametrize(("rows", "accuracy"), [(30, 0.9), (300, 0.97)])
def test_accuracy_is_covered(rows: int, accuracy: float) -> None:
    draws = np.random.default_rng(1).binomial(rows, accuracy, SIMULATIONS).tolist()
    check_coverage([wilson(right, rows) for right in draws], accuracy, most=0.98)


@pytest.mark.parametrize("rows", [[10, 10, 10], [3] * 100, [100, 60, 40, 25, 15, 5]])
def test_balanced_accuracy_is_covered_also_for_many_small_classes(rows: list[int]) -> None:
    recalls = np.linspace(0.98, 0.8, len(rows))
    draws = np.random.default_rng(2).binomial(rows, recalls, (SIMULATIONS, len(rows))).tolist()
    check_coverage([mean_share(right, rows) for right in draws], recalls.mean(), least=0.94, most=0.98)


@pytest.mark.parametrize("difference", [0.0, 0.04])
def test_a_difference_in_accuracy_is_covered(difference: float) -> None:
    shares = [(0.1 + difference) / 2, (0.1 - difference) / 2, 0.9]
    draws = np.random.default_rng(3).multinomial(300, shares, size=SIMULATIONS).tolist()
    check_coverage([paired_difference([a], [b], [300]) for a, b, _ in draws], difference)


@pytest.mark.parametrize("rows", [[100] * 3, [10] * 30])
def test_a_difference_in_balanced_accuracy_is_covered(rows: list[int]) -> None:
    rng = np.random.default_rng(4)
    disagreed = rng.binomial(rows, 0.2, (SIMULATIONS, len(rows)))
    gained = rng.binomial(disagreed, 0.6)
    found = [
        paired_difference(a, b, rows)
        for a, b in zip(gained.tolist(), (disagreed - gained).tolist(), strict=True)
    ]
    check_coverage(found, 0.2 * (0.6 - 0.4), most=0.99)


def test_the_p_value_is_the_level_at_which_the_interval_reaches_zero() -> None:
    # For one group it is that of McNemar's test without continuity correction.
    assert paired_p_value([10], [2], [100]) == pytest.approx(chi2.sf(64 / 12, 1), rel=1e-4)
    for gained, lost in (([5, 9], [1, 2]), ([1, 0], [6, 9]), ([2, 1], [1, 3]), ([4, 0], [0, 1])):
        interval = paired_difference(gained, lost, [40, 20])
        excluded = not interval.low <= 0 <= interval.high
        assert (paired_p_value(gained, lost, [40, 20]) < 0.05) is excluded
    assert paired_p_value([3, 1], [3, 1], [40, 20]) == 1
    assert 0 < paired_p_value([2000] * 2, [0] * 2, [2000] * 2) < 1e-30
