"""The rows that monitoring reads: their sources, empty and broken files, and their times."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from pipeline.cli import main
from registry_tools.inference.model_artifact import ModelArtifact
from registry_tools.inference.model_loader import load
from registry_tools.mlflow_store.tags import DRIFT_TAG
from registry_tools.models import artifacts
from registry_tools.serving.engine.prediction_events import PredictionEvent
from registry_tools.serving.observers.prediction_log import PredictionLog
from registry_tools.serving.settings import Settings
from tests.support.commands import run as registry_tools
from tests.support.monitored import NAMES, LogPart, flowers, monitor_output, run_monitor, write_log
from tests.support.registries import Place

# Sources of production data.


def served(local: Place, name: str, folder: Path) -> Any:
    folder.mkdir()
    with artifacts.model_files(local.client, name, 1) as files:
        files.rename(folder / "model")
    return load(ModelArtifact(str(folder), name, 1, None, None, None), Settings(ref=f"{name}/1").trust_policy)


def test_the_prediction_log_of_the_server_is_monitored(local: Place, model: str, tmp_path: Path) -> None:
    version = served(local, model, tmp_path / "source")
    log = PredictionLog(tmp_path / "log", 1.0, 60, lambda *_: None)
    rows, right = flowers(220)
    for number, row in enumerate(rows.to_numpy()):
        predictions = [NAMES.index(right[number])]
        log.observe(PredictionEvent(version, "predict", [row[None, :]], [predictions], [f"r{number}"]))
    log.close()
    write_log(tmp_path / "own", model, LogPart(1, rows, right))
    schemas = [
        {field.name: field.type for field in pq.read_schema(next((folder / model).iterdir()))}
        for folder in (tmp_path / "log", tmp_path / "own")
    ]
    del schemas[0]["_probabilities"]
    assert schemas[0] == schemas[1]
    for current in (tmp_path / "log", tmp_path / "log" / model):
        found = run_monitor(model, current).analysis
        assert (found.verdict(), found.rows) == ("none", 220)
        assert found.predictions == {name: right.count(name) for name in sorted(set(right))}


@pytest.mark.slow
@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_the_output_of_a_scoring_job_is_monitored(
    form: str, local: Place, model: str, tmp_path: Path, capsys: Any
) -> None:
    rows, _ = flowers(300)
    rows.insert(0, "id", [f"{n:05}" for n in range(300)])
    given, output = tmp_path / f"in.{form}", tmp_path / f"out.{form}"
    rows.to_csv(given, index=False) if form == "csv" else rows.to_parquet(given, index=False)
    summary = registry_tools(
        capsys, "score", f"{model}/1", "--input", str(given), "--output", str(output),
        "--workers", "1",
    )  # fmt: skip
    found = run_monitor(model, output).analysis
    assert (found.version, found.verdict(), found.rows) == (1, "none", 300)
    assert found.predictions == summary["counts"]


def test_a_table_without_predictions_is_predicted_by_the_version_in_the_stage(
    local: Place, model: str, tmp_path: Path
) -> None:
    rows, right = flowers(240)
    rows.iloc[:60, 2] = np.nan  # the model takes no missing values
    rows.to_parquet(tmp_path / "now.parquet", index=False)
    found = run_monitor(model, tmp_path / "now.parquet").analysis
    assert sum(found.predictions.values()) == 180
    agreed = {name: right[60:].count(name) for name in NAMES}
    assert all(abs(found.predictions[name] - agreed[name]) < 15 for name in NAMES)
    assert found.where().split(", ")[0] == "petal length (cm)"
    assert next(f for f in found.features if f.name == "petal length (cm)").current_missing == 0.25


@pytest.mark.parametrize("form", ["csv", pytest.param("parquet", marks=pytest.mark.slow)])
def test_a_table_with_the_columns_of_a_scored_one_is_split_by_version(
    form: str, local: Place, model: str, tmp_path: Path
) -> None:
    rows, right = flowers(300)
    predictions = {"prediction": [NAMES.index(name) for name in right], "prediction_name": right}
    table = rows.assign(**predictions, model_version=[1] * 210 + [2] * 90)
    path = tmp_path / f"scored.{form}"
    table.to_csv(path, index=False) if form == "csv" else table.to_parquet(path, index=False)
    result = run_monitor(model, path)
    assert (result.analysis.rows, result.analysis.verdict()) == (210, "none")
    assert sum(result.analysis.predictions.values()) == 210
    assert [(f.version, f.rows, f.verdict()) for f in result.other_versions] == [(2, 90, "unknown")]


def test_since_leaves_out_earlier_predictions(local: Place, model: str, tmp_path: Path) -> None:
    now = datetime.now(timezone.utc)
    log = write_log(
        tmp_path / "log",
        model,
        LogPart(1, *flowers(400, shift=3), at=now - timedelta(days=3)),
        LogPart(1, *flowers(220), at=now - timedelta(hours=1)),
    )
    found = run_monitor(model, log, since=timedelta(days=1)).analysis
    assert (found.rows, found.verdict()) == (220, "none")
    found = run_monitor(model, log, since=timedelta(minutes=1)).analysis
    assert (found.rows, found.verdict()) == (0, "unknown")


def test_since_needs_rows_with_the_time_of_prediction(
    local: Place, model: str, tmp_path: Path, capsys: Any
) -> None:
    flowers()[0].to_csv(tmp_path / "now.csv", index=False)
    (line,) = monitor_output(capsys, "--name", model, "--current", "now.csv", "--since", "1d", code=1)
    assert "since: the rows have no time of prediction (no column '_at')" in line


def test_too_few_rows_are_reported_with_the_number_needed(
    local: Place, model: str, tmp_path: Path, capsys: Any
) -> None:
    flowers(87, shift=5)[0].to_csv(tmp_path / "now.csv", index=False)
    first, *_ = monitor_output(capsys, "--name", model, "--current", "now.csv")
    assert re.search(r"^unknown .*: 87 rows, too few to test: 200 are needed, .* a shift of \d\.\d sd", first)
    assert local.version(model, 1).tags[DRIFT_TAG] == "unknown"
    first, *_ = monitor_output(capsys, "--name", model, "--current", "now.csv", "--min-rows", "80", code=4)
    assert first.startswith("DRIFT")


# Empty and broken data.


def empty_folder(path: Path) -> Path:
    path.mkdir()
    return path


def no_rows(path: Path) -> Path:
    return write_log(path, "another", LogPart(1, *flowers(0)))  # and of another model at that


def header(path: Path) -> Path:
    flowers(0)[0].to_csv(path.with_suffix(".csv"), index=False)
    return path.with_suffix(".csv")


def header_of_scored(path: Path) -> Path:
    table = flowers(0)[0].assign(prediction=0, prediction_name="", model_version=1)
    table.to_csv(path.with_suffix(".csv"), index=False)
    return path.with_suffix(".csv")


def no_row(path: Path) -> Path:
    flowers(0)[0].to_parquet(path.with_suffix(".parquet"), index=False)
    return path.with_suffix(".parquet")


def logged_nothing(path: Path) -> Path:
    return next((write_log(path, "x", LogPart(1, *flowers(0))) / "x").iterdir())


@pytest.mark.parametrize(
    "make",
    [
        empty_folder,
        header,
        no_row,
        *(pytest.param(make, marks=pytest.mark.slow) for make in (no_rows, header_of_scored, logged_nothing)),
    ],
)
def test_an_empty_window_is_unknown_and_no_drift(
    make: Callable[[Path], Path], local: Place, model: str, tmp_path: Path, capsys: Any
) -> None:
    first, *_, last = monitor_output(capsys, "--name", model, "--current", make(tmp_path / "now"))
    assert first.startswith(
        f"unknown   {model} version 1 in production: 0 rows, too few to test: 200 are needed"
    )
    run = local.client.get_run(last.split()[1])
    assert (run.info.status, run.data.tags["verdict"]) == ("FINISHED", "unknown")
    assert local.version(model, 1).tags[DRIFT_TAG] == "unknown"


def test_an_empty_window_with_labels_is_unknown(
    local: Place, model: str, tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "log").mkdir()
    pd.DataFrame({"request_id": ["1"], "label": "setosa"}).to_csv("labels.csv", index=False)
    options = ("--name", model, "--current", "log", "--labels", "labels.csv")
    assert monitor_output(capsys, *options)[0].startswith("unknown")


def test_files_that_are_being_written_are_not_read(local: Place, model: str, tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", model, LogPart(1, *flowers()))
    whole = next((log / model).iterdir()).read_bytes()
    (log / model / ".20260101T000009-version-1-1-9.parquet.part").write_bytes(whole[:700])
    (log / model / ".20260101T000009-version-1-1-8.parquet").write_bytes(whole[:700])
    result = run_monitor(model, log)
    assert (result.analysis.rows, result.analysis.verdict(), result.notes) == (240, "none", ())


def test_a_truncated_file_is_left_out_and_reported(
    local: Place, model: str, tmp_path: Path, capsys: Any
) -> None:
    log = write_log(tmp_path / "log", model, *[LogPart(1, *flowers(seed=n)) for n in range(3)])
    torn = sorted((log / model).iterdir())[1]
    torn.write_bytes(torn.read_bytes()[:-100])
    (log / model / "20260101-empty.parquet").write_bytes(b"")
    lines = monitor_output(capsys, "--name", model, "--current", log)
    assert "480 rows: no drift" in lines[0]
    assert f"note      {torn.name} cannot be read and was left out" in lines
    assert "note      20260101-empty.parquet cannot be read and was left out" in lines
    run = local.client.get_run(lines[-1].split()[1])
    page = Path(run.info.artifact_uri.removeprefix("file://"), "report.html").read_text()
    assert f"{torn.name} cannot be read and was left out" in page


def test_an_unreadable_log_is_reported_in_one_line(
    local: Place, model: str, tmp_path: Path, capsys: Any
) -> None:
    folder = tmp_path / "log" / model
    folder.mkdir(parents=True)
    (folder / "torn.parquet").write_bytes(b"PAR1")
    (line,) = monitor_output(capsys, "--name", model, "--current", "log", code=1)
    assert "no file can be read; the first is torn.parquet" in line
    (line,) = monitor_output(capsys, "--name", model, "--current", folder / "torn.parquet", code=1)
    assert "torn.parquet cannot be read as Parquet" in line
    (line,) = monitor_output(capsys, "--name", model, "--current", "nowhere", code=1)
    assert "nowhere: there is no such file or folder" in line


# Clocks.


def test_rows_with_a_time_in_the_future_are_used(
    local: Place, model: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now = datetime.now(timezone.utc)
    rows, right = flowers(240)
    at = [now + timedelta(days=900 * (n % 3 - 1), minutes=-n) for n in range(240)]
    log = write_log(tmp_path / "log", model, LogPart(1, rows, right, at=at))
    assert run_monitor(model, log).analysis.rows == 240
    with caplog.at_level(logging.WARNING):
        found = run_monitor(model, log, since=timedelta(days=1)).analysis
    assert found.rows == 160  # those of now, and of a day that has not come
    assert "80 rows have a time in the future: a clock is wrong; the rows are used" in caplog.text


def test_times_as_text_are_read_or_refused_in_a_line(
    local: Place, model: str, tmp_path: Path, capsys: Any
) -> None:
    rows = flowers()[0].assign(_at=f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ}")
    rows.to_csv(tmp_path / "now.csv", index=False)
    options = ["monitor", "--name", model, "--current", "now.csv", "--since", "1d"]
    code = main(options)
    out, err = capsys.readouterr()
    assert "unexpected" not in err
    assert out.startswith("none") if code == 0 else "_at" in err
