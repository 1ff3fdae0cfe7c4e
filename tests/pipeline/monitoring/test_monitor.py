"""One monitoring run: its output, what it logs, and its parameters."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import click
import httpx
import mlflow
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from mlflow.entities import Run
from playwright.sync_api import Page, expect

from pipeline.cli import cli
from pipeline.errors import InvalidParameter
from pipeline.monitoring import analysis, report
from pipeline.monitoring.actions import ActionResult
from pipeline.monitoring.monitor import MonitorResult
from pipeline.monitoring.run_log import MonitoringRun
from pipeline.params.definitions import MonitorParams
from pipeline.params.types import as_text
from registry_tools.mlflow_store import stages
from registry_tools.mlflow_store.tags import DRIFT_AT_TAG, DRIFT_RUN_TAG, DRIFT_TAG
from tests.support.mlflow_ui import expect_training_view
from tests.support.monitored import (
    IRIS,
    SHIFTED,
    LogPart,
    flowers,
    monitor_output,
    predicted_window,
    run_monitor,
    run_of,
    small,
    write_log,
)
from tests.support.registries import GOOD, Place
from tests.support.servers import eventually, metric

# The output of the command, and its results in the store.


def test_rows_like_those_of_the_training_are_no_drift(
    local: Place, model: str, tmp_path: Path, capsys: Any
) -> None:
    flowers()[0].to_csv(tmp_path / "now.csv", index=False)
    first, _, last = monitor_output(capsys, "--name", model, "--current", "now.csv")
    assert first.startswith(f"ok        {model} version 1 in production: 240 rows: no drift")
    assert last.endswith(f" in {model}-monitoring")
    tags = local.version(model, 1).tags
    assert tags[DRIFT_TAG] == "none"


def test_a_shifted_column_is_drift_and_the_line_names_it(
    local: Place, model: str, tmp_path: Path, capsys: Any
) -> None:
    flowers(shift=1)[0].to_parquet(tmp_path / "now.parquet", index=False)
    first, *_ = monitor_output(capsys, "--name", model, "--current", "now.parquet", code=4)
    assert first.startswith(f"DRIFT     {model} version 1 in production: 240 rows: drift in ")
    assert f"drift in {SHIFTED}" in first
    assert "petal" not in first


def test_each_monitoring_adds_a_step_to_the_timeline_of_its_stage(
    local: Place, model: str, tmp_path: Path
) -> None:
    for number, shift in enumerate((0, 2)):
        log = tmp_path / str(number)
        write_log(log, model, LogPart(1, *flowers(240, shift=shift)))
        run_monitor(model, log)
    experiment = local.client.get_experiment_by_name(f"{model}-monitoring")
    (timeline,) = local.client.search_runs([experiment.experiment_id], "tags.kind = 'timeline'")
    assert (timeline.info.run_name, timeline.info.status) == (f"{model}@production over time", "FINISHED")
    lines = {
        key: [(m.step, m.value) for m in local.client.get_metric_history(timeline.info.run_id, key)]
        for key in ("drift", "rows", "psi/sepal length _cm_")
    }
    assert lines["drift"] == [(0, 0), (1, 1)]
    assert lines["rows"] == [(0, 240), (1, 240)]
    assert lines["psi/sepal length _cm_"][1][1] > lines["psi/sepal length _cm_"][0][1] + 1


def lately_analysed() -> analysis.Analysis:
    own, window = small(), predicted_window(["cat"] * 40)
    return analysis.analyse_window(1, own, window, None, 20, 0.01)


def timelines(place: Place, model: str) -> list[Run]:
    experiment = place.client.get_experiment_by_name(f"{model}-monitoring")
    return list(place.client.search_runs([experiment.experiment_id], "tags.kind = 'timeline'"))


@pytest.mark.slow
def test_first_monitorings_of_a_stage_at_the_same_time_make_one_timeline(local: Place, model: str) -> None:
    opened = [MonitoringRun(local.client, model, {"stage": "production"}) for _ in range(4)]
    found, start = lately_analysed(), threading.Barrier(4)

    def log(run: MonitoringRun, rows: int) -> None:
        start.wait()
        run.log_analysis(replace(found, rows=rows))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(log, opened, (40, 41, 42, 43)))
    (timeline,) = timelines(local, model)
    assert timeline.info.run_name == f"{model}@production over time"
    rows = {metric.value for metric in local.client.get_metric_history(timeline.info.run_id, "rows")}
    assert rows == {40, 41, 42, 43}
    runs_there = local.client.search_runs([timeline.info.experiment_id])
    assert {run.info.run_id for run in runs_there} == {timeline.info.run_id, *(run.run_id for run in opened)}


def test_a_deleted_timeline_is_replaced_by_a_new_one(local: Place, model: str) -> None:
    run = MonitoringRun(local.client, model, {"stage": "production"})
    run.log_analysis(lately_analysed())
    (before,) = timelines(local, model)
    local.client.delete_run(before.info.run_id)
    run.log_analysis(lately_analysed())
    (after,) = timelines(local, model)
    assert after.info.run_id != before.info.run_id
    assert [m.step for m in local.client.get_metric_history(after.info.run_id, "rows")] == [0]


def test_an_experiment_without_the_tags_of_a_monitoring_gets_them(local: Place, model: str) -> None:
    own = {"mlflow.note.content": "my own words"}
    made = local.client.create_experiment(f"{model}-monitoring", tags=own)
    MonitoringRun(local.client, model, {"stage": "production"})
    tags = local.client.get_experiment(made).tags
    assert tags["mlflow.note.content"] == "my own words"
    assert tags["mlflow.experimentKind"] == "custom_model_development"
    assert "metrics.`drift`" in tags["mlflow.sharedViewState.monitorings"]


def test_the_output_names_the_file_of_the_report(
    local: Place, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    flowers()[0].to_csv(tmp_path / "now.csv", index=False)
    *_, report_line, run_line = monitor_output(capsys, "--name", model, "--current", "now.csv")
    label, path = report_line.split(maxsplit=1)
    assert label == "report"
    assert run_line.split()[1] in Path(path).read_text()
    monkeypatch.chdir(local.files)
    *_, report_line, _ = monitor_output(capsys, "--name", model, "--current", tmp_path / "now.csv")
    path = report_line.split(maxsplit=1)[1]
    assert not Path(path).is_absolute()
    assert Path(path).is_file()


@pytest.mark.slow
def test_the_output_names_the_page_of_the_report_on_a_server(
    server_place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, page: Page
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server_place.uri)
    monkeypatch.chdir(tmp_path)
    name = server_place.model(GOOD)
    stages.move_alias(server_place.client, name, "production", 1)
    flowers()[0].to_csv(tmp_path / "now.csv", index=False)
    *_, report_line, run_line = monitor_output(capsys, "--name", name, "--current", "now.csv")
    run = server_place.client.get_run(run_line.split()[1])
    address = report_line.split()[1]
    assert address.startswith(f"{server_place.uri}/#/experiments/{run.info.experiment_id}/runs/")
    page.goto(address)
    expect(page.frame_locator("iframe").get_by_role("heading").first).to_be_visible()
    expect_training_view(page)


@dataclass(frozen=True)
class MonitoredWindow:
    """A window whose second half is shifted, and the monitoring run of it."""

    name: str
    result: MonitorResult
    run: Run
    files: Path
    tags: dict[str, str]
    place: Place


@pytest.fixture(scope="session")
def monitored_window(sqlite_place: Place, tmp_path_factory: pytest.TempPathFactory) -> MonitoredWindow:
    folder = tmp_path_factory.mktemp("monitored")
    rows, right = flowers(500)
    rows.loc[250:, SHIFTED] += 2
    mlflow.set_tracking_uri(sqlite_place.uri)
    try:
        name = sqlite_place.model(GOOD)
        stages.move_alias(sqlite_place.client, name, "production", 1)
        write_log(folder, name, LogPart(1, rows, right))
        result = run_monitor(name, folder)
    finally:
        mlflow.set_tracking_uri(None)
    run = run_of(sqlite_place, result)
    tags = sqlite_place.version(name, 1).tags
    files = Path(run.info.artifact_uri.removeprefix("file://"))
    return MonitoredWindow(name, result, run, files, tags, sqlite_place)


def test_psi_is_logged_for_each_feature_over_the_parts_of_the_window(
    monitored_window: MonitoredWindow,
) -> None:
    suffixes = ["sepal length _cm_", "sepal width _cm_", "petal length _cm_", "petal width _cm_"]
    for suffix in suffixes:
        steps = monitored_window.place.client.get_metric_history(
            monitored_window.run.info.run_id, f"psi/{suffix}"
        )
        by_step = [m.value for m in sorted(steps, key=lambda m: m.step)]
        assert len(by_step) == 10
        early, late = np.mean(by_step[:5]), np.mean(by_step[5:])
        assert (late > early + 1) == (suffix == suffixes[0])
    assert monitored_window.run.data.metrics["missing/sepal width _cm_"] == 0
    assert monitored_window.run.data.metrics["p_value/sepal length _cm_"] < 0.01
    assert monitored_window.run.data.metrics["rows"] == 500
    assert monitored_window.run.data.metrics["drift"] == 1


def test_the_run_records_inputs_and_verdict(monitored_window: MonitoredWindow) -> None:
    tags, info = monitored_window.run.data.tags, monitored_window.run.info
    assert info.status == "FINISHED"
    experiment = monitored_window.place.client.get_experiment(info.experiment_id)
    assert experiment.name == monitored_window.result.experiment == f"{monitored_window.name}-monitoring"
    assert (tags["model"], tags["stage"], tags["version"]) == (monitored_window.name, "production", "1")
    assert tags["verdict"] == "drift"
    assert tags["where"].startswith(SHIFTED)
    assert SHIFTED in tags["mlflow.note.content"]
    assert tags["alpha"] == "0.01"


def test_the_version_has_the_last_verdict_its_time_and_its_run(monitored_window: MonitoredWindow) -> None:
    assert monitored_window.tags[DRIFT_TAG].startswith(f"drift: {SHIFTED}")
    assert monitored_window.tags[DRIFT_RUN_TAG] == monitored_window.run.info.run_id
    at = datetime.fromisoformat(monitored_window.tags[DRIFT_AT_TAG].replace("Z", "+00:00"))
    assert abs((datetime.now(timezone.utc) - at).total_seconds()) < 300


def test_the_report_is_one_page_without_external_resources(monitored_window: MonitoredWindow) -> None:
    page = (monitored_window.files / "report.html").read_text()
    assert not re.findall(r"""(?:src|href|url|@import)\s*[=(]?\s*["']?\s*https?:""", page)
    assert not re.findall(r"https?://", page)
    assert "<script" not in page.lower()
    sources = re.findall(r'src="([^"]{0,30})', page)
    assert len(sources) == 3
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    for text in (
        monitored_window.name,
        monitored_window.run.info.run_id,
        SHIFTED,
        "petal width (cm)",
        "PSI",
        "DRIFT",
    ):
        assert text.lower() in page.lower()


def test_the_figures_and_the_findings_are_logged_with_the_report(monitored_window: MonitoredWindow) -> None:
    drawn = sorted(path.name for path in (monitored_window.files / "plots" / "version-1").iterdir())
    assert drawn == ["features.png", "over_time.png", "predictions.png"]
    content = json.loads((monitored_window.files / "findings.json").read_text())
    assert (content["name"], content["stage"], content["version"]) == (
        monitored_window.name, "production", 1,
    )  # fmt: skip
    assert content["run_id"] == monitored_window.run.info.run_id
    (version,) = content["versions"]
    assert version["verdict"] == "drift"
    assert version["where"][0] == SHIFTED
    assert {feature["name"] for feature in version["features"]} == set(IRIS.data.columns)
    assert all(test["adjusted_p_value"] >= test["p_value"] for test in version["tests"])
    assert content["actions"] == content["notes"] == []


def test_a_report_shows_names_as_they_are_written(tmp_path: Path) -> None:
    evil = "<script>alert('x')</script>"
    own, window = (small({evil: np.arange(40.0)}), predicted_window(["cat"] * 40, {evil: np.arange(40.0)}))
    found = analysis.analyse_window(1, own, window, None, 20, 0.01)
    head = {
        "name": evil, "stage": "production", "version": 1, "current": evil, "run_id": "1",
        "alpha": 0.01, "notes": [evil],
    }  # fmt: skip
    report.write_report(tmp_path, head, [(found, own, window)], [ActionResult("retrain", "failed", evil)])
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page


# Parameters.


def test_the_command_line_has_an_option_for_every_parameter_of_the_monitor() -> None:
    options = {o.name for o in cli.commands["monitor"].params if isinstance(o, click.Option)}
    assert options == MonitorParams.model_fields.keys() | {"config", "verbose"}


def test_the_defaults_of_the_monitor_are_equal_after_conversion_to_text_and_back() -> None:
    params = MonitorParams(current="log")
    assert MonitorParams(**{name: as_text(value) for name, value in params}) == params


@pytest.mark.parametrize(
    ("name", "value", "bounds"),
    [
        ("current", "none", "the production data is required"),
        ("since", "yesterday", "a time such as 12h or 7d"),
        ("since", "1", "a time such as 12h or 7d"),
        ("cooldown", "-1d", "a time such as 12h or 7d"),
        ("cooldown", "none", "a time such as 12h or 7d"),
        ("min_rows", "19", "a whole number of rows from 20"),
        ("min_rows", "200.5", "a whole number of rows from 20"),
        ("alpha", "0", "a number from 1e-9 to 0.5"),
        ("alpha", "1", "a number from 1e-9 to 0.5"),
        ("alpha", "nan", "a number from 1e-9 to 0.5"),
        ("promote", "true", "needs retrain=TABLE"),
        ("promote", "yes", "true or false"),
        ("rollback", "true", "needs labels=FILE"),
        ("stage", "v1", "MLflow reserves"),
        ("name", "a/b", "must not be empty"),
    ],
)
def test_a_value_out_of_bounds_is_named_with_its_parameter(name: str, value: str, bounds: str) -> None:
    with pytest.raises(InvalidParameter, match=re.escape(bounds)) as caught:
        MonitorParams(**{"current": "log", name: value})
    assert str(caught.value).startswith(f"{name}={value}: ")


def test_retraining_is_refused_if_the_stage_of_candidates_is_monitored(capsys: Any) -> None:
    options = ("--current", "log", "--stage", "Staging", "--retrain", "table.csv")
    (line,) = monitor_output(capsys, *options, code=2)
    assert (
        "retrain=table.csv: the candidate would replace the version in staging, the monitored stage" in line
    )


def test_a_time_is_read_in_its_unit() -> None:
    for text, seconds in (("90s", 90), ("30min", 1800), ("1.5h", 5400), ("7d", 604_800)):
        params = MonitorParams(current="log", cooldown=text)
        assert params.cooldown == timedelta(seconds=seconds)


# The metrics of the server.


@pytest.mark.slow
def test_the_server_reports_the_last_drift_verdict(client: httpx.Client, model: str, local: Place) -> None:
    def tag(key: str, value: str) -> None:
        local.client.set_model_version_tag(model, "1", key, value)

    def gauge() -> float:
        return metric(client, "serving_drift")

    assert gauge() == -1
    tag(DRIFT_AT_TAG, "2026-01-02T03:04:05Z")
    for verdict, value in ((f"drift: {SHIFTED}", 1), ("none", 0), ("unknown", -1), ("drift: x", 1)):
        tag(DRIFT_TAG, verdict)
        client.post("/-/refresh")
        assert gauge() == value
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc).timestamp()
    assert metric(client, "serving_drift_timestamp_seconds") == at
    tag(DRIFT_AT_TAG, "whenever")
    tag(DRIFT_TAG, "none")
    client.post("/-/refresh")
    assert gauge() == 0
    assert client.get("/model").json()["last_error"] is None


@pytest.mark.slow
def test_the_verdict_on_a_prediction_log_reaches_the_metrics_of_its_server(
    serve: Callable[..., httpx.Client], model: str, tmp_path: Path, capsys: Any
) -> None:
    client = serve(f"{model}@production", "--log-predictions", "log", "--log-every", "0.3")
    rows, right = flowers(220, shift=2)
    known = []
    for start in range(0, 220, 20):
        some = rows.iloc[start : start + 20]
        body = {"columns": list(some.columns), "data": some.to_numpy().tolist()}
        reply = client.post("/invocations", json={"dataframe_split": body})
        known += [
            {"request_id": reply.headers["x-request-id"], "row": row, "label": right[start + row]}
            for row in range(20)
        ]
    pd.DataFrame(known).to_csv(tmp_path / "labels.csv", index=False)
    folder = tmp_path / "log" / model
    eventually(lambda: sum(len(pq.read_table(f)) for f in folder.glob("*.parquet")) == 220)
    options = ("--name", model, "--current", "log", "--labels", "labels.csv")
    lines = monitor_output(capsys, *options, code=4)
    assert SHIFTED in lines[0]
    assert "220 labelled rows" in lines[1]
    assert client.post("/-/refresh").is_success
    assert metric(client, "serving_drift") == 1
