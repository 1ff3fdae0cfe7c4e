"""The gates by any metric, on plain values."""

from __future__ import annotations

import numpy as np
import pytest

from registry_tools.errors import InputError
from registry_tools.evaluation.gates.baseline import baseline_gate
from registry_tools.evaluation.gates.comparison import champion_gate
from registry_tools.evaluation.gates.slices import group_rows, slices_gate
from registry_tools.evaluation.verdict import GateResult
from registry_tools.stats.holdout_metrics import threshold_metrics
from registry_tools.stats.metric import Outcomes, choose_metric, find_metric
from registry_tools.stats.paired_metric import compare_by
from registry_tools.task import CLASSIFICATION, REGRESSION
from tests.support.regressions import FEATURES, GOOD, HELD_OUT, LABELS, POOR, SIMILAR, USELESS

GOOD_ROWS, SIMILAR_ROWS, POOR_ROWS, USELESS_ROWS = (
    Outcomes(LABELS[HELD_OUT], model.predict(FEATURES[HELD_OUT])) for model in (GOOD, SIMILAR, POOR, USELESS)
)


def judge(metric: str, rule: str, margin: float, candidate: Outcomes = SIMILAR_ROWS) -> GateResult:
    compared = compare_by(find_metric(metric, REGRESSION), candidate, GOOD_ROWS)
    assert compared is not None
    return champion_gate(compared, rule, margin, 0)


@pytest.mark.parametrize(
    ("metric", "rule", "margin", "passed", "message"),
    [
        ("rmse", "not-worse", 0.01, True, "rmse 54.064 against 53.777 on 148 rows: difference +0.28746 ["),
        ("rmse", "not-worse", 0.001, False, "worse by more than the margin of 0.001 of the champion's rmse"),
        ("rmse", "better", 0.01, False, "not significantly better"),
        ("rmse", "non-inferior", 0.01, False, "too few rows to show it: "),
        ("rmse", "non-inferior", 0.05, True, "at the 95% bound, margin 0.05 of the champion's value"),
        ("mae", "not-worse", 0.01, False, "mae 44.531 against 43.927 on 148 rows"),
        ("mae", "not-worse", 0.02, True, "not worse by more than the margin of 0.02 of the champion's mae"),
        ("r2", "not-worse", 0.01, True, "r2 0.5372 against 0.5421 on 148 rows: difference -0.0049"),
        ("median_absolute_error", "not-worse", 0.1, False, "p(better) 0.971; significantly worse"),
        (
            "tests.support.metrics:negative_error",
            "not-worse",
            0.9,
            True,
            "tests.support.metrics:negative_error -44.5305 against -43.9274",
        ),
    ],
)
def test_the_rules_hold_for_each_metric_of_a_regression(
    metric: str, rule: str, margin: float, passed: bool, message: str
) -> None:
    gate = judge(metric, rule, margin)
    assert message in gate.message
    assert gate.passed == passed
    assert not judge(metric, rule, min(margin, 0.5), POOR_ROWS).passed


def test_a_regression_must_beat_the_mean_or_the_median() -> None:
    rmse, mae = (find_metric(name, REGRESSION) for name in ("rmse", "mae"))
    good = baseline_gate(rmse, GOOD_ROWS)
    assert good.passed
    assert good.message.startswith("rmse 53.777 against 79.475 for always the mean 156.07 on 148 rows")
    assert "for always the median 149 on 148 rows" in baseline_gate(mae, GOOD_ROWS).message
    useless = baseline_gate(rmse, USELESS_ROWS)
    assert not useless.passed
    assert "not significantly better: train a better model" in useless.message
    constant = Outcomes(LABELS, np.full(len(LABELS), 100.0))
    assert baseline_gate(rmse, constant).message.endswith(
        "no better: train a better model, or --no-baseline --reason TEXT"
    )


def test_a_group_is_compared_by_its_errors() -> None:
    sites = ["north", "south"] * 74
    predicted = GOOD_ROWS.predicted + np.where(np.array(sites) == "south", 60.0, 0.0)
    groups = group_rows(
        "site", sites, find_metric("rmse", REGRESSION), Outcomes(GOOD_ROWS.labels, predicted), GOOD_ROWS
    )
    assert "significantly worse in site='south': rmse " in slices_gate(groups).message


@pytest.mark.parametrize("metric", ["recall:yes", "precision:yes"])
def test_a_group_with_few_rows_of_the_class_is_not_judged(metric: str) -> None:
    useful, _ = rare()
    sites = np.where(np.arange(200) < 170, "north", "south").tolist()  # 3 of 30 rows are of the class
    groups = group_rows("site", sites, find_metric(metric, CLASSIFICATION), useful, useful)
    assert [(group.rows, group.compared is None) for group in groups] == [(17, True), (3, True)]
    sites = ["north" if site == "north" else None for site in sites]
    by_accuracy = group_rows("site", sites, find_metric("accuracy", CLASSIFICATION), useful, useful)
    assert [group.rows for group in by_accuracy if group.compared is not None] == [170, 30]


def rare(rows: int = 200) -> tuple[Outcomes, Outcomes]:
    """Return a useful and a useless classifier of a class that a tenth of the rows have."""
    labels = np.array((["yes"] + ["no"] * 9) * (rows // 10), dtype=object)
    scores = np.where(labels == "yes", 0.8, 0.2) + np.linspace(-0.15, 0.15, rows)
    useful = np.column_stack([1 - scores, scores])
    useless = np.tile([0.9, 0.1], (rows, 1))
    return (
        Outcomes(labels, np.where(scores > 0.5, "yes", "no").astype(object), useful, ("no", "yes")),
        Outcomes(labels, np.full(rows, "no", dtype=object), useless, ("no", "yes")),
    )


@pytest.mark.parametrize(
    ("metric", "constant"),
    [
        ("balanced_accuracy", "'no'"),
        ("f1_macro", "'no'"),
        ("roc_auc", "the shares of the classes"),
        ("average_precision", "the shares of the classes"),
        ("log_loss", "the shares of the classes"),
        ("recall:yes", "'no'"),
        ("precision:yes", "'yes'"),
        ("tests.support.metrics:agreement", "'no'"),
    ],
)
def test_a_model_of_a_rare_class_must_beat_constant_predictions(metric: str, constant: str) -> None:
    useful, useless = rare()
    by = find_metric(metric, CLASSIFICATION)
    good = baseline_gate(by, useful)
    assert good.passed
    assert f"for always {constant} on 200 rows" in good.message
    bad = baseline_gate(by, useless)
    assert not bad.passed


def test_a_metric_that_a_model_cannot_give_is_an_error_or_undefined() -> None:
    useful, _ = rare()
    without = Outcomes(useful.labels, useful.predicted)
    with pytest.raises(InputError, match="metric=roc_auc: the model has no probabilities"):
        baseline_gate(find_metric("roc_auc", CLASSIFICATION), without)
    one_class = useful.take(np.asarray(useful.labels == "no"))
    gate = baseline_gate(find_metric("roc_auc", CLASSIFICATION), one_class)
    assert gate.message.startswith(
        "roc_auc is undefined on the 180 rows, for example because they lack a class"
    )


def test_a_recorded_function_is_not_imported_unless_the_user_names_it() -> None:
    metric, note = choose_metric(None, "no_such_module:score", REGRESSION)
    assert (metric.name, "needs --metric no_such_module:score" in note) == ("rmse", True)
    assert choose_metric(None, "mae", REGRESSION)[0].name == "mae"
    assert choose_metric("r2", "mae", REGRESSION)[0].name == "r2"
    assert choose_metric(None, None, CLASSIFICATION)[0].name == "accuracy"
    with pytest.raises(InputError, match="no_such_module"):
        choose_metric("no_such_module:score", None, REGRESSION)


def test_thresholds_know_each_metric_of_the_task() -> None:
    found = threshold_metrics(GOOD_ROWS, REGRESSION, ())
    assert sorted(found) == ["mae", "median_absolute_error", "r2", "rmse"]
    useful, _ = rare()
    found = threshold_metrics(useful, CLASSIFICATION, {"recall:yes", "no_such_metric"})
    assert (found["recall:yes"], found["class/yes/recall"], found["recall"]) == (1.0, 1.0, 1.0)
    assert {"average_precision", "balanced_accuracy", "log_loss", "class/no/precision"} <= set(found)
    assert "no_such_metric" not in found
