"""The drift tests, checked with known values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from registry_tools.stats.drift import drift_tests
from registry_tools.stats.drift.drift_tests import (
    DriftTest as Shown,  # pytest would collect it by its own name
)
from registry_tools.stats.drift.psi import psi
from tests.support.monitored import mixed

NOTHING = np.array([])


def numbers(before: Any, now: Any) -> Shown | None:
    return drift_tests.ks_test(np.asarray(before, float), np.asarray(now, float), "x")


def categories(before: dict[str, int], now: dict[str, int]) -> Shown | None:
    return drift_tests.chi_squared_test(before, now, "x")


def test_the_statistic_of_numbers_is_the_largest_distance_of_the_two_distributions() -> None:
    found = numbers(np.arange(100), np.arange(50, 150))
    assert found is not None
    assert (found.target, found.kind) == ("x", "Kolmogorov-Smirnov")
    assert found.statistic == pytest.approx(0.5)
    assert found.p_value == pytest.approx(stats.ks_2samp(range(100), range(50, 150)).pvalue)
    assert found.p_value < 1e-10


def test_equal_numbers_are_no_drift_for_any_number_of_rows() -> None:
    for rows in (50, 5000):
        found = numbers(np.arange(rows), np.arange(rows))
        assert found is not None
        assert (found.statistic, found.p_value) == (0, 1)


def test_many_numbers_are_compared_by_the_limit_of_the_exact_distribution() -> None:
    random = np.random.default_rng(1)
    before, now = random.normal(0, 1, 1900), random.normal(0.1, 1, 1900)
    exact = numbers(before, now)
    limit = numbers(before, np.concatenate([now, random.normal(0.1, 1, 101)]))
    assert exact is not None
    assert limit is not None
    assert np.log10(limit.p_value) == pytest.approx(np.log10(exact.p_value), abs=1)


def test_numbers_on_one_side_only_are_not_compared() -> None:
    for before, now in ((NOTHING, [1.0]), ([1.0], NOTHING), ([np.nan] * 9, [1.0] * 9)):
        assert numbers(before, now) is None


def test_missing_numbers_are_left_out() -> None:
    assert numbers([1.0, np.nan, 2.0], [1.0, 2.0, np.nan]) == numbers([1.0, 2.0], [1.0, 2.0])


def test_constant_numbers_are_alike_and_another_constant_is_not() -> None:
    same, other = numbers([3.0] * 100, [3.0] * 100), numbers([3.0] * 100, [4.0] * 100)
    assert same is None
    assert other is not None
    assert other.statistic == 1
    assert other.p_value < 1e-10


def test_categories_are_compared_by_chi_squared() -> None:
    found = categories({"a": 30, "b": 10}, {"a": 20, "b": 40})
    assert found is not None
    # 100 (30·40 - 10·20)² / (40·60·50·50) = 16.67, with one degree of freedom
    assert found.statistic == pytest.approx(np.sqrt(100 / 6 / 100))
    assert found.p_value == pytest.approx(stats.chi2.sf(100 / 6, 1))
    assert found.kind == "chi-squared"


def test_rare_categories_are_put_together() -> None:
    before = {"a": 100, **{f"old {n}": 1 for n in range(20)}}
    now = {"a": 100, **{f"new {n}": 1 for n in range(20)}}
    found = categories(before, now)
    assert found is not None
    assert found.p_value == pytest.approx(1)  # 100 and 20 on either side


def test_a_small_pool_of_rare_categories_joins_the_rarest_other_category() -> None:
    found = categories({"a": 60, "b": 50, "c": 1, "d": 2}, {"a": 60, "b": 50, "e": 3})
    assert found is not None
    assert (found.statistic, found.p_value) == (pytest.approx(0), pytest.approx(1))


def test_an_unseen_category_is_drift() -> None:
    found = categories({"a": 100, "b": 20}, {"a": 100, "c": 20})
    assert found is not None
    assert found.p_value < 1e-6


@pytest.mark.parametrize(
    ("before", "now"), [({"a": 50}, {"a": 70}), ({}, {"a": 70}), ({"a": 50, "b": 50}, {}), ({}, {})]
)
def test_constant_or_empty_categories_are_not_compared(before: dict[str, int], now: dict[str, int]) -> None:
    assert categories(before, now) is None


def test_few_rows_are_compared_by_fishers_exact_test() -> None:
    few, rare = (categories({"a": 2, "b": 1}, {"a": 1, "b": 2}), categories({"a": 100}, {"a": 98, "b": 2}))
    for found, table in ((few, [[2, 1], [1, 2]]), (rare, [[100, 0], [98, 2]])):
        assert found is not None
        assert found.kind == "Fisher's exact"
        assert found.p_value == pytest.approx(stats.fisher_exact(table).pvalue)


def test_the_order_of_categories_does_not_matter() -> None:
    before, now = {"a": 30, "b": 10, "c": 1}, {"b": 40, "a": 20, "d": 2}
    turned = categories(dict(reversed(before.items())), dict(reversed(now.items())))
    assert turned == categories(before, now)


def test_few_missing_values_are_compared_by_fishers_exact_test() -> None:
    found = drift_tests.missing_values_test((3, 4), (1, 4), "x")  # the lady who tastes tea
    assert found is not None
    assert found.p_value == pytest.approx(34 / 70)
    assert found.statistic == -0.5
    assert found.kind == drift_tests.MISSING


def test_many_missing_values_are_compared_by_chi_squared() -> None:
    found = drift_tests.missing_values_test((10, 100), (30, 100), "x")
    assert found is not None
    # With Yates' correction: 200 (2000 - 100)² / (40·160·100·100)
    assert found.p_value == pytest.approx(stats.chi2.sf(11.28125, 1))
    assert found.statistic == pytest.approx(0.2)


def test_columns_without_missing_values_are_not_compared() -> None:
    assert drift_tests.missing_values_test((0, 100), (0, 200), "x") is None
    assert drift_tests.missing_values_test((0, 100), (0, 0), "x") is None


def test_values_that_are_all_missing_before_and_now_are_no_drift() -> None:
    found = drift_tests.missing_values_test((100, 100), (200, 200), "x")
    assert found is not None
    assert found.p_value == 1
    gone = drift_tests.missing_values_test((0, 100), (200, 200), "x")
    assert gone is not None
    assert gone.p_value < 1e-10


def test_the_accuracy_test_is_one_sided() -> None:
    found = drift_tests.share_test((3, 4), (1, 4))
    assert found is not None
    assert found.p_value == pytest.approx(17 / 70)
    assert found.statistic == 0.5
    better = drift_tests.share_test((50, 100), (90, 100))
    assert better is not None
    assert better.p_value > 0.99
    assert drift_tests.share_test((3, 4), (0, 0)) is None
    assert drift_tests.share_test((0, 0), (3, 4)) is None


def correlated(rows: int, correlation: float, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    values = random.multivariate_normal([0, 0], [[1, correlation], [correlation, 1]], rows)
    return pd.DataFrame(values, columns=["first", "second"])


def test_all_features_together_show_a_correlation_that_none_of_them_shows() -> None:
    before, now = correlated(500, 0.9, 1), correlated(500, 0.0, 2)
    for name in before:
        alone = drift_tests.ks_test(before[name].to_numpy(), now[name].to_numpy(), str(name))
        assert alone is not None
        assert alone.p_value > 0.05
    found = drift_tests.joint_test(before, now)
    assert found is not None
    assert (found.target, found.kind) == (drift_tests.ALL_FEATURES, "classifier")
    assert found.p_value < 1e-4
    assert found.statistic > 0.6


def test_all_features_together_show_nothing_on_equal_rows() -> None:
    before = correlated(500, 0.9, 1)
    shown = [drift_tests.joint_test(before, now) for now in (before, correlated(500, 0.9, 2))]
    for found in shown:
        assert found is not None
        assert found.p_value > 0.05
        assert found.statistic == pytest.approx(0.5, abs=0.1)


def test_the_same_rows_give_the_same_result() -> None:
    before, now = mixed(300, 1), mixed(300, 2)
    found = drift_tests.joint_test(before, now)
    assert found == drift_tests.joint_test(before.copy(), now.copy())
    assert found is not None
    assert found.p_value > 0.01


def test_the_joint_test_finds_changed_dependence_of_categories_and_missing_values() -> None:
    before, now = mixed(1000, 1), mixed(1000, 2)
    now["sold"] = now["colour"] == "red"
    found = drift_tests.joint_test(before, now)
    assert found is not None
    assert found.p_value < 1e-6


def test_the_joint_test_finds_a_column_that_is_all_missing() -> None:
    for name in ("size", "colour", "tame"):
        now = mixed(300, 2)
        now[name] = None
        found = drift_tests.joint_test(mixed(300, 1), now)
        assert found is not None
        assert found.p_value < 1e-6


def test_the_joint_test_skips_few_rows_no_columns_and_constants() -> None:
    rows = pd.DataFrame({"x": np.arange(19.0)})
    assert drift_tests.joint_test(rows, pd.DataFrame({"x": np.arange(500.0)})) is None
    assert drift_tests.joint_test(rows[[]], rows[[]]) is None
    constant = pd.DataFrame({"x": np.ones(100), "y": "same"})
    assert drift_tests.joint_test(constant, constant) is None


def test_holm_corrects_as_in_the_worked_example() -> None:
    p_values = (0.01, 0.04, 0.03, 0.005)
    tests = [Shown(str(place), "", 0.0, p) for place, p in enumerate(p_values)]
    found = drift_tests.holm_correction(tests)
    assert [test.target for test in found] == ["0", "1", "2", "3"]
    assert [test.adjusted_p_value for test in found] == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert [test.p_value for test in found] == list(p_values)


def test_a_corrected_p_value_is_never_above_one() -> None:
    found = drift_tests.holm_correction([Shown("a", "", 0.0, 0.9), Shown("b", "", 0.0, 0.4)])
    assert [test.adjusted_p_value for test in found] == [0.9, 0.8]
    assert [
        test.adjusted_p_value for test in drift_tests.holm_correction([Shown("a", "", 0.0, 0.9)] * 2)
    ] == [1, 1]
    assert drift_tests.holm_correction([]) == []


def test_psi_is_the_sum_over_the_bins() -> None:
    found = psi(np.array([500_000, 500_000]), np.array([750_000, 250_000]))
    assert found == pytest.approx(0.25 * np.log(1.5) - 0.25 * np.log(0.5), rel=1e-4)
    assert psi(np.array([10, 20]), np.array([10, 20])) == 0


def test_psi_of_empty_bins_is_finite() -> None:
    for before, now in (([100, 0], [0, 100]), ([0, 0], [5, 5]), ([7], [0])):
        found = psi(np.array(before), np.array(now))
        assert np.isfinite(found)
        assert found >= 0


def test_the_shift_that_is_found_goes_with_the_root_of_the_rows() -> None:
    few, many = (drift_tests.detectable_shift(rows, 10**9, 10, 0.01) for rows in (200, 800))
    assert few == pytest.approx(2 * many, rel=1e-4)
    # (z(0.9995) + z(0.8)) / √(0.64 · 200 · 120 / 320)
    found = drift_tests.detectable_shift(200, 120, 10, 0.01)
    assert found == pytest.approx((3.29053 + 0.84162) / np.sqrt(48), rel=1e-4)


def test_four_windows_of_five_show_the_shift_that_is_promised() -> None:
    shift, random = drift_tests.detectable_shift(200, 400, 10, 0.01), np.random.default_rng(0)
    found = 0
    for _ in range(150):
        test = numbers(random.normal(0, 1, 400), random.normal(shift, 1, 200))
        found += test is not None and test.p_value < 0.01 / 10
    assert 0.65 < found / 150 < 0.95
