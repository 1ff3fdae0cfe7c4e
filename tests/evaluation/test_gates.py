"""The gates on plain values."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from registry_tools.cli import promotion
from registry_tools.data.schema import Column
from registry_tools.evaluation.gates import comparison, slices
from registry_tools.evaluation.gates import version as version_gates
from registry_tools.evaluation.gates.baseline import baseline_gate
from registry_tools.evaluation.gates.comparison import champion_gate
from registry_tools.evaluation.gates.thresholds import (
    latency_gate,
    latency_ratio_gate,
    size_ratio_gate,
    thresholds_gate,
)
from registry_tools.evaluation.verdict import GateResult
from registry_tools.mlflow_store.thresholds import failed_thresholds
from registry_tools.stats.metric import Outcomes, find_metric
from registry_tools.stats.paired_metric import compare_by, compare_counts, compare_shares
from registry_tools.task import CLASSIFICATION

ACCURACY = find_metric("accuracy", CLASSIFICATION)
A, B = Column("a", "double"), Column("b", "long")


@pytest.mark.parametrize(
    ("candidate", "message"),
    [
        (None, "no signature"),
        ([A, B, Column("c", "double")], "new required column 'c'"),
        ([A, B, Column("c", "string", required=False)], "new optional column 'c'"),
        ([A], "'b' no longer accepted; the champion's clients send exactly its 2 columns"),
        ([A, Column("bb", "long")], "new required column 'bb'; 'b' no longer accepted; renamed?"),
        ([A, Column("bb", "long", required=False)], "new optional column 'bb'; 'b' no longer accepted"),
        ([B, A], "its columns are in another order"),
        ([A, Column("b", "integer")], "column 'b' was long, is integer"),
        ([Column("a", "float"), B], "column 'a' was double, is float"),
        ([Column("a", "string"), B], "column 'a' was double, is string"),
    ],
)
def test_a_signature_that_the_champions_clients_do_not_fit_is_refused(
    candidate: list[Column] | None, message: str
) -> None:
    result = version_gates.signature_gate(candidate, [A, B])
    assert not result.passed
    assert message in result.message
    if candidate is not None:
        way_out = "train it under another model name, or promote it with --force --reason TEXT"
        assert result.message.endswith(way_out)


@pytest.mark.parametrize(
    "candidate", [[A, B], [A, Column("b", "double")], [Column("a", "double", required=False), B]]
)
def test_a_compatible_signature_passes(candidate: list[Column]) -> None:
    assert version_gates.signature_gate(candidate, [A, B]).passed


def test_a_column_that_was_optional_may_not_become_required() -> None:
    optional = Column("a", "double", required=False)
    result = version_gates.signature_gate([A], [optional])
    assert result.message.startswith("column 'a' was optional, is required: ")


def model_output(predictions: list[int], probabilities: list[list[float]] | None = None) -> dict:
    return {"predictions": predictions, "probabilities": probabilities}


def test_predictions_must_be_the_recorded_ones() -> None:
    recorded = model_output([0, 1], [[0.9, 0.1], [0.2, 0.8]])
    assert version_gates.predictions_gate(recorded, recorded).passed
    nearly = model_output([0, 1], [[0.9 + 1e-9, 0.1 - 1e-9], [0.2, 0.8]])
    assert version_gates.predictions_gate(recorded, nearly).passed
    other = version_gates.predictions_gate(recorded, model_output([0, 0]))
    assert other.message == "the prediction for row 1 of the input example differs from the record"
    fewer = version_gates.predictions_gate(recorded, model_output([0]))
    assert not fewer.passed
    off = version_gates.predictions_gate(recorded, model_output([0, 1], [[0.8, 0.2], [0.2, 0.8]]))
    assert off.message == "a probability differs by 0.1 from the recorded one"
    nan = version_gates.predictions_gate(recorded, model_output([0, 1], [[np.nan, 0.1], [0.2, 0.8]]))
    assert not nan.passed


def test_thresholds_name_the_metrics_that_miss_them() -> None:
    metrics = {"accuracy": 0.95, "log_loss": 0.3}
    passed = thresholds_gate(metrics, {"accuracy": 0.95}, {"log_loss": 0.3}, failed_thresholds)
    assert passed.passed
    missed = thresholds_gate(metrics, {"accuracy": 0.96}, {"log_loss": 0.3}, failed_thresholds)
    assert missed.message == "accuracy 0.9500, at least 0.96 required"


def test_a_metric_without_a_value_misses_its_threshold() -> None:
    result = thresholds_gate({"log_loss": float("nan")}, {}, {"log_loss": 1.0}, failed_thresholds)
    assert (result.passed, result.message) == (False, "log_loss is nan on these rows")


@pytest.mark.parametrize(
    ("probabilities", "message"),
    [
        ([[0.5, 0.5], [np.nan, 1.0]], "row 1 of the holdout has the probability nan for 'a'"),
        ([[0.5, 0.5], [-0.5, 1.5]], "row 1 of the holdout has the probability -0.5 for 'a'"),
        ([[0.5, 0.5], [0.5, 0.6]], "the probabilities of row 1 of the holdout sum to 1.1, not 1"),
        ([[1.0], [1.0]], "the model gives probabilities of shape (2, 1) for 2 classes"),
    ],
)
def test_values_that_are_no_probabilities_are_refused(probabilities: list[list[float]], message: str) -> None:
    assert version_gates.probabilities_fault(np.array(probabilities), ("a", "b")) == message
    assert version_gates.probabilities_fault(np.array([[0.5, 0.5005]]), ("a", "b")) is None


def test_recorded_probabilities_must_be_there_and_of_the_same_shape() -> None:
    two = model_output([0, 1], [[0.9, 0.1], [0.2, 0.8]])
    three = model_output([0, 1], [[0.9, 0.1, 0], [0.2, 0.8, 0]])
    none = model_output([0, 1])
    assert "but the model returns none" in version_gates.predictions_gate(two, none).message
    assert "but none are recorded" in version_gates.predictions_gate(none, two).message
    shapes = "the probabilities have the shape (2, 3), the recorded ones (2, 2)"
    assert version_gates.predictions_gate(two, three).message == shapes
    nan = model_output([0, 1], [[np.nan, 0.1], [0.2, 0.8]])
    assert version_gates.predictions_gate(nan, nan).message == "a probability is NaN or infinite"


def test_predictions_of_one_output_and_of_floats_are_those_recorded() -> None:
    recorded = model_output([2, 1])
    for given in ([2.0, 1.0], [[2], [1]]):
        assert version_gates.predictions_gate(recorded, {"predictions": given}).passed
        assert version_gates.predictions_gate({"predictions": given}, recorded).passed


def accuracy_baseline(labels: np.ndarray, predicted: np.ndarray) -> GateResult:
    return baseline_gate(ACCURACY, Outcomes(labels, predicted))


def test_the_baseline_is_the_commonest_class() -> None:
    labels = np.array(["a"] * 12 + ["b"] * 8, dtype=object)
    right = accuracy_baseline(labels, labels)
    assert right.passed
    assert right.metrics["baseline_accuracy"] == 0.6
    assert right.metrics["p_better"] == pytest.approx(0.5**8)
    assert right.message == (
        "1.0000 against 0.6000 for always 'a' on 20 rows: p(better) 0.00391; significantly better"
    )
    constant = accuracy_baseline(labels, np.full(20, "a", dtype=object))
    assert not constant.passed
    assert constant.message.endswith("; no better: train a better model, or --no-baseline --reason TEXT")
    mixed = np.array(["a"] * 12 + ["b"] * 4 + ["a"] * 4, dtype=object)
    better = accuracy_baseline(labels, mixed)
    assert (better.passed, better.metrics["p_better"]) == (False, 0.5**4)
    assert "not significantly better: train a better model, or give more rows with --eval" in better.message
    few = accuracy_baseline(labels[:16], labels[:16])
    assert not few.passed
    assert "4 rows have a class other than 'a', and 5 are needed" in few.message
    none = accuracy_baseline(labels[:0], labels[:0])
    assert (none.passed, none.message.split(";")[0]) == (False, "there are no rows to evaluate on")


def group(value: str, gained: int, lost: int, rows: int = 100) -> slices.Group:
    compared = compare_counts(rows, gained, lost, rows - gained - lost)
    return slices.Group("site", value, rows, compared)


def test_groups_are_corrected_together() -> None:
    alone = slices.slices_gate([group("a", 0, 6)])
    assert not alone.passed
    assert alone.metrics["p_worse"] == pytest.approx(0.5**6)
    four = slices.slices_gate([group("a", 0, 6), *(group(v, 0, 0) for v in "bcd")])
    assert four.passed  # 4 * 0.5**6 is above 5%
    assert four.message == "significantly worse in no group: lowest p(worse) 0.0625, corrected over 4 groups"
    two = slices.slices_gate([group("a", 0, 9), group("b", 1, 12), group("c", 0, 0)])
    assert two.message == (
        # By Holm, 3 * 14 / 2**13 for b, the smaller one, and no less for a.
        "significantly worse in site='a': 0.9100 against 1.0000 on 100 rows, p(worse) 0.00513, "
        "site='b': 0.8800 against 0.9900 on 100 rows, p(worse) 0.00513, corrected over 3 groups"
    )


def test_rows_without_a_value_and_the_text_missing_are_two_groups() -> None:
    labels = np.full(3, "a", dtype=object)
    groups = slices.group_rows("site", ["missing", None, None], ACCURACY, *[Outcomes(labels, labels)] * 2)
    assert [(group.title, group.rows) for group in groups] == [("site='missing'", 1), ("site missing", 2)]


@pytest.mark.parametrize(
    ("in_table", "leaked", "duplicates"),
    [({}, 3, 0), ({3: 2}, 2, 1), ({3: 3}, 1, 2), ({3: 3, 4: 2}, 0, 3), ({9: 5}, 3, 0)],
)
def test_a_row_on_both_sides_is_a_leak_unless_the_table_has_it_as_often(
    in_table: dict[int, int], leaked: int, duplicates: int
) -> None:
    holdout, training = np.array([1, 2, 3, 3, 4], np.uint64), np.array([4, 5, 3], np.uint64)
    known = np.array(list(in_table.items()), np.uint64).reshape(-1, 2)
    result = version_gates.clean_holdout_gate(holdout, training, known)
    assert result.passed is (leaked == 0)
    assert result.metrics == {"shared_rows": leaked, "duplicate_rows": duplicates}


def score_statistic(rows: int, gained: int, lost: int, tested: float) -> float:
    """Return Tango's statistic; the share that only the champion has right is maximised by search."""

    def minus_log_likelihood(share: float) -> float:
        shares = np.array([share + tested, share, 1 - 2 * share - tested])
        return -float(np.dot([gained, lost, rows - gained - lost], np.log(shares)))

    bounds = max(0.0, -tested) + 1e-9, (1 - tested) / 2 - 1e-9
    share = minimize_scalar(minus_log_likelihood, bounds=bounds, options={"xatol": 1e-10}).x
    variance = rows * (2 * share + tested - tested**2)
    return float((gained - lost - rows * tested) / np.sqrt(variance))


def test_paired_counts_become_accuracies_and_tests() -> None:
    compared = compare_counts(rows=100, only_candidate_right=1, only_champion_right=9, both_right=85)
    assert compared.candidate == pytest.approx(0.86)
    assert compared.champion == pytest.approx(0.94)
    assert compared.difference == pytest.approx(-0.08)
    # Exact McNemar: at least 9 of 10 coin tosses, (10 + 1) / 2**10.
    assert compared.p_worse == pytest.approx(11 / 1024)
    # At each limit the score statistic is as far from the counts as the limit's level allows.
    for limit, z in ((compared.low, 1.96), (compared.bound, 1.645), (compared.high, -1.96)):
        assert score_statistic(100, 1, 9, limit) == pytest.approx(z, abs=0.001)
    same = compare_counts(rows=50, only_candidate_right=0, only_champion_right=0, both_right=50)
    assert (same.difference, same.p_worse, same.p_better) == (0, 1, 1)
    assert same.low == -same.high == pytest.approx(-0.0713, abs=0.0001)  # and not certainly nothing


def test_predictions_on_the_same_rows_are_paired() -> None:
    labels = np.array(["a", "a", "b", "b"], dtype=object)
    candidate = Outcomes(labels, np.array(["a", "a", "b", "a"], dtype=object))
    champion = Outcomes(labels, np.array(["a", "b", "a", "b"], dtype=object))
    compared = compare_by(ACCURACY, candidate, champion)
    assert compared is not None
    assert (compared.only_candidate_right, compared.only_champion_right) == (2, 1)
    assert (compared.candidate, compared.champion) == (0.75, 0.5)
    assert compare_by(ACCURACY, candidate.take(np.arange(1)), champion.take(np.arange(1))) is not None


def test_the_rules_of_the_command_line_are_those_of_the_gate() -> None:
    assert promotion.RULES == comparison.RULES


def gate(rows: int, gained: int, lost: int, rule: str, margin: float = 0.01) -> GateResult:
    both = rows - gained - lost
    return champion_gate(compare_counts(rows, gained, lost, both), rule, margin, 0)


@pytest.mark.parametrize(
    ("rows", "gained", "lost", "passed"),
    [
        (30, 0, 0, True),
        (30, 0, 1, False),  # 3 points below
        (200, 1, 3, True),  # one point below: the margin
        (200, 0, 3, False),
        (10_000, 10, 60, False),  # half a point below, and significantly so
        (10_000, 100, 110, True),
    ],
)
def test_not_worse(rows: int, gained: int, lost: int, passed: bool) -> None:
    assert gate(rows, gained, lost, "not-worse").passed is passed


def test_non_inferior_needs_rows_enough_and_says_how_many() -> None:
    too_few = gate(100, 0, 0, "non-inferior")
    assert "too few rows to show it: 268 are enough" in too_few.message
    assert gate(268, 0, 0, "non-inferior").passed
    assert not gate(267, 0, 0, "non-inferior").passed
    assert not gate(3_000, 100, 150, "non-inferior").passed
    assert gate(3_000, 60, 50, "non-inferior").passed
    assert gate(300, 40, 2, "non-inferior").passed  # shown on fewer rows than an equal one needs
    assert "too few rows to show it: 2061 are enough" in gate(300, 5, 5, "non-inferior").message


def test_non_inferior_is_recommended_above_300_rows_where_the_weaker_rule_passes() -> None:
    assert "prefer --rule non-inferior" in gate(301, 3, 3, "not-worse").message
    assert "\n" not in gate(301, 3, 3, "not-worse").message
    for quiet in (gate(300, 3, 3, "not-worse"), gate(301, 3, 3, "better"), gate(301, 0, 9, "not-worse")):
        assert "prefer" not in quiet.message


@pytest.mark.slow
def test_non_inferior_passes_a_candidate_that_is_worse_by_the_margin_in_one_case_of_twenty() -> None:
    rng = np.random.default_rng(6)
    for disagreement in (0.012, 0.1):  # hardly any gains, and many of both
        shares = [(disagreement - 0.01) / 2, (disagreement + 0.01) / 2, 1 - disagreement]
        draws = rng.multinomial(1_000, shares, size=1_000).tolist()
        passed = sum(gate(1_000, gained, lost, "non-inferior").passed for gained, lost, _ in draws)
        assert passed <= 50 + 2.5 * 6.9  # standard errors


def test_better_is_significant() -> None:
    assert not gate(30, 1, 0, "better").passed
    assert gate(300, 12, 2, "better").passed


def test_every_verdict_shows_difference_interval_and_p_value() -> None:
    for rule in comparison.RULES:
        result = gate(300, 3, 4, rule)
        assert "difference -0.0033 [" in result.message
        assert "p(worse) 0.5, p(better) 0.773" in result.message
        assert {"difference", "low", "high", "p_worse", "p_better"} <= set(result.metrics)


ALL_RIGHT = np.full(60, "a", dtype=object)
DISTINCT = np.arange(60) < 20  # of the 60 rows


def wrong_in(rows: np.ndarray) -> np.ndarray:
    return np.where(rows, "b", ALL_RIGHT)


def judge_better(candidate: np.ndarray, champion: np.ndarray) -> GateResult:
    def judge(mask: np.ndarray) -> GateResult:
        right, other = ((each == ALL_RIGHT)[mask] for each in (candidate, champion))
        return champion_gate(compare_shares(right, other), "better", 0.01, 0)

    return comparison.judge_distinct(judge, DISTINCT)


def test_repeated_rows_make_no_difference_significant() -> None:
    champion = wrong_in(np.arange(60) % 20 < 3)  # three rows, each three times
    every_row = np.ones(60, bool)
    counted = champion_gate(compare_shares(every_row, champion == ALL_RIGHT), "better", 0.01, 0)
    assert (counted.passed, counted.metrics["rows"]) == (True, 60)
    result = judge_better(ALL_RIGHT, champion)
    assert (result.passed, result.metrics["rows"], result.metrics["repeated_rows"]) == (False, 20, 40)
    assert result.message.endswith("not significantly better; repeated rows left out: 40")


def test_a_row_that_is_repeated_because_it_is_common_is_not_hidden() -> None:
    champion = wrong_in(np.arange(60) < 9)
    assert judge_better(ALL_RIGHT, champion).passed
    result = judge_better(wrong_in((np.arange(60) == 10) | ~DISTINCT), champion)
    assert (result.passed, result.metrics["rows"]) == (False, 60)
    assert result.message.endswith("not significantly better; it passes without the repeated rows: 40")


def test_repeated_rows_are_not_counted_among_the_rows_that_are_needed() -> None:
    refusal = comparison.too_few_rows(np.arange(300) < 10, 30)
    assert refusal is not None
    assert refusal.message.startswith(
        "10 of 330 rows are left to compare, 20 are needed (left out: 30 training rows, 290 repeated): train"
    )
    alone = comparison.too_few_rows(np.arange(300) < 10, 0)
    assert alone is not None
    assert alone.message.endswith(
        "(left out: 290 repeated): give more rows with --eval-data FILE --target COLUMN"
    )


def test_too_few_rows_name_the_ways_out() -> None:
    assert comparison.too_few_rows(np.ones(20, bool), 0) is None
    refusal = comparison.too_few_rows(np.ones(3, bool), 27)
    assert refusal is not None
    for way_out in ("champion's split", "split=hash", "--eval-data FILE --target COLUMN"):
        assert way_out in refusal.message


def test_latency_is_the_median() -> None:
    assert latency_gate([1.0, 2.0, 100.0], 2.0).passed
    assert not latency_gate([1.0, 2.5, 2.6], 2.0).passed


def test_costs_are_ratios_of_medians_and_of_bytes() -> None:
    assert latency_ratio_gate([2.0, 2.0, 90.0], [1.0, 1.0, 9.0], 2.0).passed
    refused = latency_ratio_gate([2.2, 2.2, 2.2], [1.0, 1.0, 9.0], 2.0)
    assert refused.message == (
        "2.20 ms for one row, the champion 1.00 ms (medians of 3): 2.20 times as long, "
        "at most 2 times allowed"
    )
    assert size_ratio_gate(3_000, 1_000, 3).passed
    assert size_ratio_gate(3_100, 1_000, 3).message == (
        "3,100 bytes, the champion 1,000: 3.10 times as large, at most 3 times allowed"
    )
