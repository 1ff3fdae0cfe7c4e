"""The live metric of a version that accuracy does not judge: regressions and rare classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from pipeline.errors import DataError
from pipeline.monitoring.data import labels
from pipeline.monitoring.data.labels import LabelledPredictions
from pipeline.monitoring.performance import compare_live
from pipeline.params.definitions import TrainParams
from pipeline.training import baseline
from pipeline.training.train import train
from registry_tools import load_model
from registry_tools.stats.metric import Outcomes, find_metric
from registry_tools.stats.metric_comparison import estimate_number_metric
from registry_tools.task import REGRESSION
from tests.support.monitored import LogPart, monitor_output, run_monitor, write_log

FEATURES = pd.DataFrame({"x": np.arange(40.0)})


def numbers(rows: int, seed: int, scale: float = 1) -> Outcomes:
    random = np.random.default_rng(seed)
    true = random.normal(50, 10, rows)
    return Outcomes(true, true + scale * random.normal(0, 2, rows))


def classes(rows: int, seed: int, found: float = 0.9) -> Outcomes:
    """Return outcomes of which a tenth is rare, and the share of the rare rows that is predicted."""
    random = np.random.default_rng(seed)
    is_rare = np.arange(rows) % 10 == 0
    hit = is_rare & (random.random(rows) < found)
    scores = np.where(hit, 0.9, 0.1) + random.uniform(-0.05, 0.05, rows)
    names = np.array(["usual", "rare"], dtype=object)
    both = np.column_stack([1 - scores, scores])
    return Outcomes(names[is_rare.astype(int)], names[hit.astype(int)], both, ("usual", "rare"))


def compare(promoted: Outcomes, live: Outcomes, metric: str) -> tuple[Any, Any]:
    own = baseline.make_baseline(FEATURES, "y", promoted, metric)
    return compare_live(own, LabelledPredictions(live, ()))


@pytest.mark.parametrize("metric", ["rmse", "mae", "median_absolute_error", "r2"])
def test_larger_errors_are_found_and_equal_ones_are_not(metric: str) -> None:
    promoted = numbers(90, 0)
    found, test = compare(promoted, numbers(300, 1, scale=3), metric)
    assert test.target == f"live {metric}"
    assert test.p_value < 1e-5
    assert found.describe_change() == f"live {metric} {'fell' if metric == 'r2' else 'rose'}"
    assert found.live == estimate_number_metric(find_metric(metric, REGRESSION), numbers(300, 1, scale=3))
    assert found.live.low <= found.live.value <= found.live.high
    assert found.interval == ("bootstrap" if metric == "median_absolute_error" else "Student")
    assert compare(promoted, numbers(300, 2), metric)[1].p_value > 0.01
    assert compare(promoted, numbers(300, 3, scale=0.3), metric)[1].p_value > 0.5


def test_equal_errors_give_as_many_false_alarms_as_asked_for() -> None:
    p_values = [compare(numbers(60, seed), numbers(200, seed + 999), "mae")[1].p_value for seed in range(60)]
    # Of 60 windows, 3 are expected below 0.05; more than 9 have a probability of 0.1%.
    assert sum(p < 0.05 for p in p_values) <= 9
    assert 0.3 < np.mean(p_values) < 0.7


def test_a_recall_counts_the_rows_of_its_class() -> None:
    found, test = compare(classes(400, 0), classes(600, 1, found=0.3), "recall:rare")
    assert (found.promoted_rows, found.rows) == (40, 60)
    assert found.interval == "Wilson"
    assert test.target == "live recall:rare"
    assert test.p_value < 1e-5
    assert compare(classes(400, 0), classes(600, 1), "recall:rare")[1].p_value > 0.01


def test_a_metric_of_probabilities_is_tested_with_the_logged_ones() -> None:
    promoted, live = classes(300, 0), classes(300, 1, found=0.2)
    found, test = compare(promoted, live, "average_precision")
    assert (found.metric, found.interval) == ("average_precision", "bootstrap")
    assert test.p_value < 1e-4
    without = Outcomes(live.labels, live.predicted)
    found, _ = compare(promoted, without, "average_precision")
    assert found.metric == "accuracy"
    assert "accuracy is compared instead of average_precision: the rows have no prob" in found.notes[0]


def test_a_function_that_a_version_names_is_not_run() -> None:
    found, _ = compare(numbers(90, 0), numbers(90, 1), "os:remove")
    assert found.metric == "rmse"
    assert "rmse is compared instead of os:remove: the monitor runs no code" in found.notes[0]


@pytest.mark.parametrize("metric", ["recall:rare", "average_precision"])
def test_a_metric_without_rows_of_its_class_is_undefined(metric: str) -> None:
    live = classes(600, 1).take(np.arange(600) % 10 != 0)
    found, test = compare(classes(400, 0), live, metric)
    assert (found.live, test) == (None, None)
    assert found.promoted.value > 0.5
    assert found.notes == (
        f"{metric} is undefined on the labelled rows, for example because they lack a class",
    )


# A rare class in a registry.


def rare(rows: int, seed: int) -> pd.DataFrame:
    x = np.random.default_rng(seed).normal(0, 1, rows)
    return pd.DataFrame({"x": x, "kind": np.where(x > 1, "rare", "usual")})


def logged_rare(folder: Path, rows: pd.DataFrame, version: int) -> tuple[Path, Path]:
    """Return a log of rows with their predictions and probabilities, and their labels."""
    found = load_model(f"rare/{version}")
    given = rows[["x"]]
    part = LogPart(
        version,
        given,
        found.predict_names(given).tolist(),
        named=False,
        probabilities=found.predict_proba(given).tolist(),
    )
    log = write_log(folder / "log", "rare", part)
    labelled = pd.DataFrame({"request_id": [f"0-{row}" for row in range(len(rows))], "kind": rows["kind"]})
    labelled.to_csv(folder / "labels.csv", index=False)
    return log, folder / "labels.csv"


def train_rare(folder: Path, metric: str, stage: str = "production") -> None:
    rare(200, 0).to_csv(folder / "rare.csv", index=False)
    path = str(folder / "rare.csv")
    train(TrainParams(data=path, target="kind", name="rare", metric=metric, stage=stage, cv="2", plots=False))


@pytest.mark.usefixtures("store")
def test_a_window_without_the_rare_class_gives_valid_json_and_no_metric(tmp_path: Path, capsys: Any) -> None:
    train_rare(tmp_path, "recall:rare")
    rows = rare(300, 1)
    log, known = logged_rare(tmp_path, rows[rows["kind"] == "usual"].reset_index(drop=True), 1)
    lines = monitor_output(capsys, "--name", "rare", "--current", log, "--labels", known, code=4)
    assert lines[1].startswith("recall:rare undefined on 0 labelled rows, ")
    assert "recall:rare is undefined on the labelled rows" in lines[2]
    run = MlflowClient().get_run(lines[-1].split()[1])
    assert not [key for key in run.data.metrics if key.startswith("live_")]
    assert run.data.metrics["promoted/class/rare/recall"] > 0
    folder = Path(run.info.artifact_uri.removeprefix("file://"))

    def refuse(constant: str) -> None:
        raise AssertionError(f"JSON has no {constant}")

    findings = json.loads((folder / "findings.json").read_text(), parse_constant=refuse)
    assert findings["versions"][0]["performance"]["live"] is None
    assert "undefined" in (folder / "report.html").read_text()


@pytest.mark.usefixtures("store")
@pytest.mark.slow
def test_the_probabilities_of_another_version_are_read(tmp_path: Path) -> None:
    train_rare(tmp_path, "average_precision", stage="staging")
    train_rare(tmp_path, "accuracy")
    log, known = logged_rare(tmp_path, rare(300, 1), 1)
    (other,) = run_monitor("rare", log, labels=str(known)).other_versions
    assert other.performance is not None
    assert (other.performance.metric, other.performance.notes) == ("average_precision", ())


# A regression in a registry.


@pytest.fixture
def line(store: str, line_csv: Path) -> pd.DataFrame:
    """Train a regression to production, and return the rows of its table."""
    train(TrainParams(data=str(line_csv), target="y", name="line", stage="production", plots=False))
    return pd.read_csv(line_csv)


def logged(folder: Path, rows: pd.DataFrame, error: float = 0) -> tuple[Path, Path]:
    """Return a log of drawn rows with their predictions, and their labels with more error."""
    drawn = rows.sample(240, replace=True, random_state=1).reset_index(drop=True)
    true = drawn.pop("y") + error * np.random.default_rng(1).normal(size=240)
    predicted = load_model("line@production").predict(drawn).tolist()
    log = write_log(folder / "log", "line", LogPart(1, drawn, predicted, named=False))
    ids = [f"0-{row}" for row in range(240)]
    pd.DataFrame({"request_id": ids, "y": true}).to_csv(folder / "labels.csv", index=False)
    return log, folder / "labels.csv"


@pytest.mark.usefixtures("drawn")
def test_a_regression_is_monitored_and_its_error_is_reported(
    line: pd.DataFrame, tmp_path: Path, capsys: Any
) -> None:
    log, known = logged(tmp_path, line)
    lines = monitor_output(capsys, "--name", "line", "--current", log, "--labels", known)
    assert lines[0].startswith("ok        line version 1 in production: 240 rows: no drift")
    assert lines[1].startswith("rmse      ")
    assert lines[1].endswith(" on 30 at promotion")
    run = MlflowClient().get_run(lines[-1].split()[1])
    assert run.data.metrics["live/rmse_low"] < run.data.metrics["live/rmse"]
    page = Path(run.info.artifact_uri.removeprefix("file://"), "report.html").read_text()
    assert "rmse, with 95% intervals by Student" in page


def test_an_error_that_rises_is_drift_and_rolls_back(line: pd.DataFrame, tmp_path: Path) -> None:
    log, known = logged(tmp_path, line, error=30)
    result = run_monitor("line", log, labels=str(known), rollback=True)
    assert result.analysis.where() == "live rmse"
    (action,) = result.actions
    assert action.action == "rollback"
    assert action.outcome == "failed"  # there is no version before this one
    assert "line" in action.message


def test_other_predictions_are_drift(line: pd.DataFrame, tmp_path: Path) -> None:
    log, _ = logged(tmp_path, line[line["y"] > line["y"].median()])
    assert "predictions" in run_monitor("line", log).analysis.where()


@pytest.mark.slow
def test_a_table_without_predictions_is_predicted_and_retrained(
    line: pd.DataFrame, line_csv: Path, tmp_path: Path
) -> None:
    rows = line.sample(240, replace=True, random_state=1).drop(columns="y")
    rows["x"] += 3
    rows.to_csv(tmp_path / "now.csv", index=False)
    result = run_monitor("line", tmp_path / "now.csv", retrain=str(line_csv))
    assert result.actions[0].outcome == "done", result.actions
    assert "version 2 in staging, rmse " in result.actions[0].message
    run = MlflowClient().get_run(MlflowClient().get_model_version("line", "2").run_id)
    assert (run.data.params["task"], run.data.params["split"]) == ("regression", "hash")


def test_labels_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("request_id,y\na,1\nb,\nc,two\n")
    with pytest.raises(DataError, match="the version predicts numbers, and 'two' is none"):
        labels.read_labels(path, "y", "regression")


@pytest.mark.parametrize("name", ["None", "NA", "null"])
def test_a_label_with_the_name_of_a_missing_value_is_a_label(name: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(f"request_id,label\na,{name}\nb,\nc,other\n")
    assert labels.read_labels(path, "kind")["label"].tolist() == [name, "other"]
