"""The gates on regressions in a real registry: metrics, rules, thresholds, and labels that are numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from registry_tools import GateRefused, InputError, compare, get_version, load_model, promote, verify
from registry_tools.cli.main import main
from registry_tools.evaluation.verdict import GateResult
from registry_tools.models.evidence import Evaluation, write_evaluation
from tests.support.commands import error_of
from tests.support.constants import LONG
from tests.support.registries import Place, evidence_folder, renew_manifest
from tests.support.regressions import (
    FEATURES,
    GOOD,
    HELD_OUT,
    LABELS,
    POOR,
    SIMILAR,
    TARGET,
    USELESS,
    held_out_rows,
    log_regressions,
    regressions,
)


def judge(place: Place, ref: str, **options: Any) -> dict[str, GateResult]:
    result = promote(ref, "production", dry_run=True, tracking_uri=place.uri, **options)
    return {gate.gate: gate for gate in result.verdict.gates}


def move(place: Place, ref: str, **options: Any) -> None:
    promote(ref, "production", tracking_uri=place.uri, reason="tried", **options)


@pytest.fixture(scope="module")
def registered(sqlite_place: Place) -> str:
    """Version 1, the champion, is good; 2 is similar, and 3 is poor."""
    name = regressions(sqlite_place, GOOD, SIMILAR, POOR)
    move(sqlite_place, f"{name}/1", new_stage=True)
    return name


@pytest.fixture
def trained(local: Place, registered: str) -> str:
    return registered


@LONG
@pytest.mark.slow
def test_regressions_are_compared_by_their_squared_errors(local: Place, trained: str) -> None:
    gates = judge(local, f"{trained}/2")
    assert all(gate.passed for gate in gates.values())
    assert gates["champion"].message.startswith("not-worse: rmse 54.064 against 53.777 on 148 rows")
    assert gates["champion"].message.endswith(
        "not worse by more than the margin of 0.01 of the champion's rmse"
    )
    assert gates["baseline"].message.startswith(
        "rmse 54.064 against 79.475 for always the mean 156.07 on 148 rows"
    )
    assert "classes" not in gates
    poor = judge(local, f"{trained}/3")
    assert [name for name, gate in poor.items() if not gate.passed] == ["champion"]
    assert poor["champion"].message.endswith("worse by more than the margin of 0.01 of the champion's rmse")
    assert poor["champion"].metrics["p_worse"] < 0.001
    assert poor["champion"].metrics["gain"] < -0.1


@pytest.mark.slow
def test_a_model_no_better_than_the_mean_is_refused(local: Place) -> None:
    held_out_rows().to_csv("rows.csv", index=False)
    name = log_regressions(local, USELESS)
    gates = judge(local, f"{name}/1", new_stage=True, eval_data="rows.csv", target=TARGET)
    assert not gates["baseline"].passed
    assert "rmse 76.258 against 79.475 for always the mean 156.07 on 148 rows" in gates["baseline"].message
    assert gates["champion"].message == "no champion"


@pytest.mark.slow
def test_thresholds_know_all_metrics_of_a_regression(local: Place, trained: str) -> None:
    least, most = {"r2": 0.5}, {"rmse": 60, "mae": 50, "median_absolute_error": 45}
    gate = judge(local, f"{trained}/2", minimum=least, maximum=most)["thresholds"]
    assert gate.passed
    gate = judge(local, f"{trained}/2", maximum={"rmse": 54})["thresholds"]
    assert (gate.passed, gate.message) == (False, "rmse 54.0641, at most 54 required")
    gate = judge(local, f"{trained}/2", minimum={"accuracy": 0.9})["thresholds"]
    assert gate.message == "no metric 'accuracy'; the metrics are: mae, median_absolute_error, r2, rmse"


@pytest.mark.slow
def test_labels_that_are_no_numbers_are_refused_by_row(local: Place, trained: str) -> None:
    rows = held_out_rows().astype({TARGET: object})
    rows.loc[7, TARGET] = "many"
    rows.to_csv("rows.csv", index=False)
    gates = judge(local, f"{trained}/2", eval_data="rows.csv", target=TARGET)
    assert (list(gates)[-1], gates["holdout"].message) == (
        "holdout",
        f"--target {TARGET} of rows.csv: row 7 has the label 'many', and the model predicts numbers: give "
        "--target the column with the numbers",
    )


@pytest.mark.slow
def test_a_group_that_is_harmed_by_its_errors_is_named(local: Place, trained: str) -> None:
    rows = held_out_rows()
    rows["site"] = np.where(np.arange(len(rows)) < 74, "north", "south")
    rows.to_csv("rows.csv", index=False)
    gate = judge(local, f"{trained}/3", eval_data="rows.csv", target=TARGET, slices=["site"])["slices"]
    assert not gate.passed
    assert "site='north': rmse 71.177 against 58.084 on 74 rows, p(worse) 0.000127" in gate.message


@LONG
@pytest.mark.slow
def test_the_metric_of_the_champion_decides_unless_the_user_names_one(local: Place) -> None:
    name = regressions(local, GOOD, SIMILAR)

    def record(metric: str, version: int) -> None:
        write_evaluation(evidence_folder(local, name, version), Evaluation("regression", metric))
        renew_manifest(local, name, version)

    record("r2", 1)
    record("mae", 2)
    first = judge(local, f"{name}/2", new_stage=True)
    assert first["baseline"].message.startswith("mae 44.531 against")
    move(local, f"{name}/1", new_stage=True)
    message = judge(local, f"{name}/2")["champion"].message
    assert "r2 0.5372 against 0.5421" in message
    assert message.endswith(
        "; compared by r2, the metric of the champion; --metric mae compares by the candidate's"
    )
    message = judge(local, f"{name}/2", metric="mae")["champion"].message
    assert "mae 44.531 against 43.927" in message
    assert "compared by" not in message
    record("r2", 2)
    assert "compared by" not in judge(local, f"{name}/2")["champion"].message
    record("no_such_module:score", 1)  # is not imported
    message = judge(local, f"{name}/2")["champion"].message
    assert "rmse 54.064" in message
    assert message.endswith(
        "compared by rmse: the recorded metric no_such_module:score runs code, and needs --metric "
        "no_such_module:score"
    )


@pytest.mark.slow
def test_a_metric_of_another_task_is_an_error(
    local: Place, trained: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match="metric=accuracy: it is a metric of classification"):
        judge(local, f"{trained}/2", metric="accuracy")
    argv = ["promote", f"{trained}/2", "--to", "production", "--metric", "rsme", "--dry-run"]
    assert "metric=rsme: did you mean rmse?" in error_of(capsys, *argv, "--tracking-uri", local.uri)


@pytest.mark.slow
def test_the_evidence_of_a_regression_records_numbers_and_reproduces_them(local: Place, trained: str) -> None:
    assert verify(f"{trained}/1", tracking_uri=local.uri).passed
    path = evidence_folder(local, trained, 1) / "recorded_predictions.json"
    text = path.read_text()
    assert '"predictions": [\n  2' in text or '"predictions": [\n  1' in text
    found = load_model(f"{trained}/1", tracking_uri=local.uri).predict(FEATURES[HELD_OUT])
    assert found == pytest.approx(GOOD.predict(FEATURES[HELD_OUT]))


@pytest.mark.slow
def test_two_regressions_are_compared_by_all_metrics_and_on_a_page(
    local: Place, trained: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = compare(f"{trained}/1", f"{trained}/3", tracking_uri=local.uri)
    assert found.as_dict()["metric"] == "rmse"
    assert found.as_dict()["paired"]["candidate_value"] == pytest.approx(53.7766, abs=1e-3)
    argv = ["compare", f"{trained}/1", f"{trained}/3", "--tracking-uri", local.uri, "--html", "page.html"]
    assert main(argv) == 0
    out = capsys.readouterr().out
    for metric in (
        "rmse 53.777 and 68.023",
        "mae 43.927 and 58.",
        "median_absolute_error 40.122 and 57.961",
        "r2 0.5421 and ",
    ):
        assert metric in out
    page = Path("page.html").read_text()
    assert f"{trained} 1 has the smaller rmse on 148 rows" in page
    assert "The largest disagreement comes first" in page
    assert "class" not in page.replace("class=", "")


@pytest.mark.slow
def test_a_regression_goes_to_production_and_is_refused_with_code_3(
    local: Place, trained: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(GateRefused):
        move(local, f"{trained}/3")
    assert get_version(f"{trained}@production", tracking_uri=local.uri).version == 1
    capsys.readouterr()
    row = ",".join(map(str, FEATURES.iloc[0]))
    assert main(["predict", f"{trained}@production", "--features", row, "--tracking-uri", local.uri]) == 0
    assert float(capsys.readouterr().out.split()[0]) == pytest.approx(GOOD.predict(FEATURES[:1])[0])
    assert len(LABELS) == 442
