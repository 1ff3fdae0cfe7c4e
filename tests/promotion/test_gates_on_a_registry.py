"""The gates on versions in a registry: plain `log_model`, judged by evaluation data."""

from __future__ import annotations

import itertools
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import infer_signature
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neighbors import KNeighborsClassifier

from registry_tools.cli.main import main
from registry_tools.errors import GateRefused, InputError, PromotionError
from registry_tools.evaluation.eval_data import read_eval_data
from registry_tools.evaluation.evaluate import evaluate
from registry_tools.evaluation.gate_options import GateOptions
from registry_tools.evaluation.verdict import GateResult, Verdict
from registry_tools.models.trust_policy import TRUSTED_TYPES, TrustPolicy
from registry_tools.promotion import history, promote, rollback
from registry_tools.refs import ModelRef
from tests.support.commands import error_of
from tests.support.constants import LONG
from tests.support.registries import EQUAL, GOOD, POOR, Place

ROWS = 200
LABELS = np.arange(ROWS) % 2
FEATURES = pd.DataFrame({"x": np.arange(ROWS, dtype=float), "even": (LABELS == 0).astype(float)})


def memorizing(predictions: np.ndarray[Any, Any]) -> KNeighborsClassifier:
    """Return a model that predicts just that for `FEATURES`."""
    return KNeighborsClassifier(1, algorithm="brute").fit(FEATURES, predictions)


_numbers = itertools.count(1)


def log(*models: Any, **options: Any) -> str:
    """Register models by MLflow's own means, as versions 1, 2, … of a new one; return its name."""
    name = f"gated-{os.getpid()}-{next(_numbers)}"
    for model in models:
        with mlflow.start_run():
            mlflow.sklearn.log_model(
                model,
                name="model",
                signature=infer_signature(FEATURES),
                serialization_format="skops",
                skops_trusted_types=list(TRUSTED_TYPES),
                pip_requirements=[],
                registered_model_name=name,
                **options,
            )
    return name


def eval_data(labels: Any = LABELS, **columns: Any) -> Any:
    FEATURES.assign(label=labels, **columns).to_csv("rows.csv", index=False)
    return read_eval_data(Path("rows.csv"), "label")


def judge(place: Place, name: str, version: int = 1, champion: int | None = None, **options: Any) -> Verdict:
    held = None if champion is None else place.version(name, champion)
    options = {"eval_data": eval_data(), **options}
    return evaluate(place.client, place.version(name, version), held, GateOptions(**options))


def only_refusal(verdict: Verdict) -> GateResult:
    (refusal,) = verdict.refusals
    return refusal


def results(verdict: Verdict) -> dict[str, GateResult]:
    return {gate.gate: gate for gate in verdict.gates}


def test_a_first_version_that_is_no_better_than_the_majority_class_is_refused(local: Place) -> None:
    name = local.model()
    with pytest.raises(GateRefused, match=r"baseline: 0\.3333 against 0\.3333 for always 'setosa'") as caught:
        promote.promote(local.client, ModelRef(name, version=POOR), "production", GateOptions())
    assert [gate.gate for gate in caught.value.promotion.verdict.refusals] == ["baseline"]
    assert "on 30 rows: p(better) " in str(caught.value)
    assert "--no-baseline --reason TEXT" in str(caught.value)
    assert local.holder(name) is None


def test_no_baseline_needs_a_reason_and_is_recorded(local: Place, capsys: Any) -> None:
    name = local.model(GOOD, POOR)
    options = GateOptions(baseline=False)
    with pytest.raises(PromotionError, match="--no-baseline needs --reason"):
        promote.promote(local.client, ModelRef(name, version=2), "production", options)
    command = ("promote", f"{name}/2", "--to", "production", "--no-baseline")
    assert "--no-baseline needs --reason" in error_of(capsys, *command, code=2)
    assert history.list_events(local.client, name) == []
    assert main([*command, "--reason", "a demonstration"]) == 0
    assert local.holder(name) == 2
    (event,) = history.list_events(local.client, name)
    baseline = [gate for gate in event.gates if gate["gate"] == "baseline"]
    assert [(gate["passed"], gate["message"]) for gate in baseline] == [(True, "skipped (--no-baseline)")]


def test_on_too_few_rows_no_version_is_better_than_the_majority_class(local: Place) -> None:
    name = log(memorizing(LABELS))
    FEATURES.assign(label=LABELS).iloc[:9].to_csv("few.csv", index=False)
    refusal = only_refusal(judge(local, name, eval_data=read_eval_data(Path("few.csv"), "label")))
    assert refusal.gate == "baseline"
    assert "and 5 are needed; give more rows" in refusal.message


@pytest.mark.slow
def test_a_recall_on_too_few_rows_of_its_class_is_refused(local: Place) -> None:
    name = log(memorizing(LABELS), memorizing(LABELS))
    table = FEATURES.assign(label=LABELS)
    table[(LABELS == 0) | (np.arange(ROWS) < 6)].to_csv("few.csv", index=False)
    data = read_eval_data(Path("few.csv"), "label")
    versions = (local.version(name, 2), local.version(name, 1))
    options = GateOptions(eval_data=data, metric="recall:1")
    refusal = only_refusal(evaluate(local.client, *versions, options))
    assert refusal.gate == "champion"
    assert refusal.message.startswith("recall:1 compares 3 of the 103 rows, 20 are needed: give more rows")
    assert evaluate(local.client, *versions, replace(options, metric="recall:0")).passed


@LONG
@pytest.mark.slow
def test_repeated_rows_count_once(local: Place, capsys: Any) -> None:
    name = log(memorizing(predictions_wrong_in(range(2))), memorizing(LABELS))
    local.client.set_registered_model_alias(name, "production", "1")
    table = FEATURES.assign(label=LABELS)
    command = ("promote", f"{name}/2", "--to", "production", "--eval-data", "rows.csv", "--target", "label")
    pd.concat([table[:10]] * 30).to_csv("rows.csv", index=False)
    assert main([*command, "--rule", "better"]) == 3
    assert "10 of 300 rows are left to compare, 20 are needed (left out: 290 repeated)" in (
        capsys.readouterr().err
    )
    pd.concat([table[:25]] * 12).to_csv("rows.csv", index=False)
    assert main([*command, "--rule", "better", "--json"]) == 3
    gates = {gate["gate"]: gate for gate in json.loads(capsys.readouterr().out)["verdict"]["gates"]}
    assert gates["champion"]["metrics"]["rows"] == gates["baseline"]["metrics"]["rows"] == 25
    assert gates["champion"]["metrics"]["repeated_rows"] == 275
    assert (gates["champion"]["passed"], gates["baseline"]["passed"]) == (False, True)
    shown = "1.0000 against 0.9200 on 25 rows"
    assert shown in gates["champion"]["message"]
    assert gates["champion"]["message"].endswith("repeated rows left out: 275")
    assert main(["compare", f"{name}/2", f"{name}/1", *command[-4:]]) == 0
    assert "not recorded), without 275 repeated ones: 1.0000 and 0.9200" in capsys.readouterr().out
    # The same features with another label, or another value of a further column, are no repetition.
    again = pd.concat([table[:25].assign(patient=patient) for patient in range(12)])
    again.to_csv("rows.csv", index=False)
    assert main([*command, "--rule", "better"]) == 0


def test_without_a_row_to_evaluate_on_nothing_is_promoted(local: Place) -> None:
    name = log(memorizing(LABELS))
    data = eval_data()
    nothing = replace(data, rows=data.rows.take(np.zeros(ROWS, dtype=bool)))
    refusal = only_refusal(judge(local, name, eval_data=nothing, minimum={"accuracy": 0.5}))
    assert refusal.message.startswith("there are no rows to evaluate on")


@pytest.mark.parametrize("threshold", [(), ("--min", "accuracy=0.5"), ("--max", "log_loss=1")])
def test_nan_probabilities_are_refused_with_and_without_a_threshold(
    threshold: tuple[str, ...], local: Place, capsys: Any
) -> None:
    model = LogisticRegression(max_iter=1000).fit(FEATURES, LABELS)
    model.coef_[:] = np.nan
    name = log(model)
    eval_data()
    options = ("--eval-data", "rows.csv", "--target", "label", *threshold)
    assert main(["promote", f"{name}/1", "--to", "production", *options]) == 3
    assert "predictions: row 0 of the holdout has the probability nan for '0'" in capsys.readouterr().err


def test_thresholds_need_a_second_class(local: Place) -> None:
    zeros = np.zeros(ROWS, dtype=int)
    name = log(DummyClassifier().fit(FEATURES, zeros))
    options = {"eval_data": eval_data(zeros), "minimum": {"log_loss": 0}, "baseline": False}
    assert only_refusal(judge(local, name, **options)).message.startswith("the only class is '0'")


@pytest.mark.slow
def test_a_float_label_is_the_class_of_its_integer(local: Place) -> None:
    nested = MultiOutputClassifier(LogisticRegression(max_iter=1000)).fit(FEATURES, LABELS[:, None])
    name = log(memorizing(LABELS), memorizing(LABELS.astype(float)), nested)
    for version in (2, 3):
        options = {"minimum": {"accuracy": 1}, "maximum": {"log_loss": 0.1}}
        verdict = judge(local, name, version, champion=1, **options)
        assert verdict.passed, verdict.refusals
        assert results(verdict)["champion"].metrics["difference"] == 0


def test_a_classifier_of_several_outputs_gets_one_refusal(local: Place) -> None:
    two = memorizing(np.column_stack([LABELS, LABELS]))
    name = log(two)
    verdict = judge(local, name, minimum={"accuracy": 0.9})
    assert only_refusal(verdict).message.startswith(f"{name} version 1 predicts 2 classes for each row, ")


@pytest.mark.parametrize(
    ("champion", "shown"),
    [(np.array(["no", "yes"])[LABELS], "no, yes"), (LABELS + 1, "1, 2")],
)  # fmt: skip
def test_a_champion_that_predicts_no_codes_is_not_scored_on_codes(
    champion: Any, shown: str, local: Place
) -> None:
    name = log(memorizing(champion), memorizing(predictions_wrong_in(range(60))))
    refusal = only_refusal(judge(local, name, 2, champion=1))
    assert refusal.gate == "champion"
    assert f"the champion, version 1, predicts {shown}; the labels are 0, 1" in refusal.message
    assert refusal.metrics == {}  # nothing was compared


@pytest.mark.parametrize("shift", [0, 1])
def test_codes_are_the_labels_of_a_version_with_target_names_only_if_they_are_its_own(
    shift: int, local: Place
) -> None:
    name = log(memorizing(LABELS + shift), metadata={"target_names": ["no", "yes", "unknown"]})
    refusals = judge(local, name, minimum={"accuracy": 0}).refusals
    assert [refusal.gate for refusal in refusals] == (["thresholds", "baseline"] if shift else [])


class Constant(mlflow.pyfunc.PythonModel):
    """A model of no flavor of its own that predicts its classes, and once another value."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
        predicted = (model_input["x"] % 2).astype(int).astype(object)
        return predicted.where(model_input["x"] != 7, self.value).to_numpy()


@LONG
@pytest.mark.slow
@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_a_prediction_that_is_no_value_is_refused_and_its_row_named(value: Any, local: Place) -> None:
    name = f"missing-{next(_numbers)}"
    for each in (value, 1):
        with mlflow.start_run():
            mlflow.pyfunc.log_model(
                python_model=Constant(each),
                name="model",
                signature=infer_signature(FEATURES),
                input_example=FEATURES.head(2),
                pip_requirements=[],
                registered_model_name=name,
            )
    options = {"trust_policy": TrustPolicy(allow_code=True)}
    refusal = only_refusal(judge(local, name, 1, **options))
    message = f"row 7 of the holdout rows: the model predicts {value}, which is not a class"
    assert (refusal.gate, refusal.message) == ("predictions", message)
    refusal = only_refusal(judge(local, name, 2, champion=1, **options))
    assert refusal.gate == "champion"
    assert refusal.message.startswith(
        f"the champion, version 1: row 7 of the compared rows: the model predicts {value}"
    )


class Halves(mlflow.pyfunc.PythonModel):
    """A model of no flavor of its own that predicts numbers."""

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
        return model_input["x"].to_numpy() / 2


@pytest.mark.slow
def test_a_regressor_is_not_compared_with_a_classifier(local: Place) -> None:
    name = log(LinearRegression().fit(FEATURES, FEATURES["x"]), memorizing(LABELS))
    refusal = results(judge(local, name, 1, champion=2, eval_data=eval_data(FEATURES["x"])))["champion"]
    assert (refusal.passed, refusal.message.split(":")[0]) == (
        False,
        "the champion, version 2, predicts classes; the labels are numbers",
    )
    refusal = results(judge(local, name, 2, champion=1))["champion"]
    assert refusal.message.startswith("the champion, version 1, predicts numbers; the labels are classes")


@pytest.mark.slow
def test_a_model_of_another_flavor_that_predicts_numbers_is_a_regressor(local: Place) -> None:
    with mlflow.start_run():
        mlflow.pyfunc.log_model(
            python_model=Halves(),
            name="model",
            signature=infer_signature(FEATURES, np.array([0.5])),
            input_example=FEATURES.head(2),
            pip_requirements=[],
            registered_model_name="halves",
        )
    data, trust_policy = eval_data(FEATURES["x"] / 2), TrustPolicy(allow_code=True)
    verdict = judge(local, "halves", trust_policy=trust_policy, eval_data=data)
    assert verdict.passed
    assert results(verdict)["baseline"].message.startswith("rmse 0 against ")


@pytest.mark.slow
def test_a_version_without_rows_that_was_forced_into_a_stage_can_be_rolled_back_to(local: Place) -> None:
    model = LinearRegression().fit(FEATURES, FEATURES["x"])
    name = log(model, model)
    for version in (1, 2):
        ref = ModelRef(name, version=version)
        promote.promote(local.client, ref, "production", GateOptions(), reason="no rows yet", force=True)
    assert rollback.rollback(local.client, name, "production", reason="worse").version == 1


SITES = np.where(np.arange(ROWS) < 100, "north", "south")


def predictions_wrong_in(*rows: range) -> np.ndarray[Any, Any]:
    wrong = LABELS.copy()
    for some in rows:
        wrong[list(some)] = 1 - wrong[list(some)]
    return wrong


@pytest.fixture
def harmful(local: Place) -> str:
    """Version 1 errs in 30 rows of the north, version 2 in 15 of the south: better, except there."""
    return log(memorizing(predictions_wrong_in(range(30))), memorizing(predictions_wrong_in(range(150, 165))))


def test_a_group_of_rows_that_is_harmed_refuses_the_candidate_and_is_named(
    harmful: str, local: Place, capsys: Any
) -> None:
    assert judge(local, harmful, 2, champion=1).passed
    data = eval_data(site=SITES)
    refusal = only_refusal(judge(local, harmful, 2, champion=1, eval_data=data, slices=("site",)))
    assert refusal.gate == "slices"
    assert refusal.message == (
        "significantly worse in site='south': 0.8500 against 1.0000 on 100 rows, p(worse) 6.1e-05, "
        "corrected over 2 groups"
    )
    assert refusal.metrics["groups_harmed"] == 1
    local.client.set_registered_model_alias(harmful, "production", "1")
    options = ("--eval-data", "rows.csv", "--target", "label", "--slice", "site", "--json")
    assert main(["promote", f"{harmful}/2", "--to", "production", *options]) == 3
    gates = json.loads(capsys.readouterr().out)["verdict"]["gates"]
    assert [gate["gate"] for gate in gates if not gate["passed"]] == ["slices"]


@pytest.mark.slow
def test_slices_are_feature_columns_and_small_groups_are_named(local: Place) -> None:
    name = log(memorizing(LABELS), memorizing(LABELS))
    sites = ["far" if row < 12 else None if row < 50 else "near" for row in range(ROWS)]
    verdict = judge(local, name, 2, 1, eval_data=eval_data(site=sites), slices=("even", "site"))
    assert verdict.passed
    assert results(verdict)["slices"].message == (
        "significantly worse in no group: lowest p(worse) 1, corrected over 4 groups; not judged, fewer "
        "than 20 rows: site='far' (12)"
    )


@pytest.mark.parametrize(
    ("slices", "message"),
    [(("x",), "--slice x: it has 200 values, and at most 20 are supported: add a column"),
     (("site",), "--slice site: no such column; the columns are: 'x', 'even', 'tens', 'kind'"),
     (("kind",), "--slice kind: one group only, the whole table: name a column with several values"),
     (("tens",), "no group has 20 rows; not judged, fewer than 20 rows: tens='0' (10), tens='1' (10)")],
)  # fmt: skip
def test_columns_that_make_no_groups_are_refused(slices: Any, message: str, local: Place) -> None:
    name = log(memorizing(LABELS), memorizing(LABELS))
    data = eval_data(tens=np.arange(ROWS) // 10, kind="all")
    refusal = only_refusal(judge(local, name, 2, 1, eval_data=data, slices=slices))
    assert refusal.message.startswith(message)


@pytest.mark.slow
def test_without_a_champion_slices_say_that_nothing_was_compared_and_check_their_columns(
    local: Place,
) -> None:
    name = log(memorizing(LABELS))
    data = eval_data(site=SITES, kind="all")
    passed = judge(local, name, eval_data=data, slices=("site", "even"))
    assert passed.passed
    assert results(passed)["slices"].message == "no champion to compare the groups with"
    for column, message in (("kind", "one group only"), ("x", "it has 200 values"), ("town", "no such col")):
        refusal = only_refusal(judge(local, name, eval_data=data, slices=("site", column)))
        assert refusal.message.startswith(f"--slice {column}: {message}")


@pytest.mark.slow
def test_costs_are_compared_with_the_champion(local: Place) -> None:
    name = local.model(GOOD, EQUAL)
    good, equal = local.version(name, GOOD), local.version(name, EQUAL)
    loose = GateOptions(max_latency_ratio=1e6, max_size_ratio=1e6)
    passed = evaluate(local.client, equal, good, loose)
    assert passed.passed
    size = results(passed)["size_ratio"].metrics
    assert size["size_ratio"] == size["bytes"] / size["champion_bytes"]
    assert set(results(passed)["latency_ratio"].metrics) == {
        "latency_ratio", "latency_ms", "champion_latency_ms",
    }  # fmt: skip
    strict = GateOptions(max_latency_ratio=1e-6, max_size_ratio=1e-6)
    refusals = evaluate(local.client, equal, good, strict).refusals
    assert [refusal.gate for refusal in refusals] == ["latency_ratio", "size_ratio"]
    first = evaluate(local.client, equal, None, strict)
    assert first.passed
    assert results(first)["size_ratio"].message == results(first)["latency_ratio"].message == "no champion"


@pytest.mark.parametrize("name", ["max_latency_ratio", "max_size_ratio"])
def test_ratios_are_above_zero(name: str) -> None:
    with pytest.raises(InputError, match=f"{name}=0: must be above 0"):
        GateOptions(**{name: 0})
