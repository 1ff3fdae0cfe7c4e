"""Versions and processes as they should not be: what the monitor makes of them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.cli import main
from pipeline.monitoring import report
from pipeline.monitoring.monitor import MonitorResult
from pipeline.training import baseline
from registry_tools.mlflow_store import registry, runs, stages
from registry_tools.mlflow_store.tags import DRIFT_TAG
from registry_tools.models import manifest
from registry_tools.promotion import history
from tests.support.constants import LONG, ROOT
from tests.support.monitored import (
    NAMES,
    SHIFTED,
    LogPart,
    action_outcomes,
    fewer_figures,  # noqa: F401 - a fixture
    flowers,
    grown_table,
    last_run,
    monitor_output,
    passing,  # noqa: F401 - a fixture
    promoted_versions,
    run_monitor,
    write_log,
)
from tests.support.registries import EQUAL, GOOD, POOR, Place
from tests.support.servers import BIN, eventually

# Versions.


def test_rows_of_three_versions_are_each_compared_with_the_baseline_of_their_own(
    local: Place, tmp_path: Path, capsys: Any
) -> None:
    name = local.model(GOOD, EQUAL, POOR)
    stages.move_alias(local.client, name, "production", 2)
    rows, right = flowers(240, seed=1)
    log = write_log(
        tmp_path / "log",
        name,
        LogPart(1, *flowers(240, shift=3)),
        LogPart(2, rows, right),
        LogPart(3, *flowers(60)),
        LogPart(2, *flowers(240, seed=2)),
    )
    lines = monitor_output(capsys, "--name", name, "--current", log)  # the one in the stage decides
    assert lines[0].startswith(f"ok        {name} version 2 in production: 480 rows: no drift")
    assert lines[1].startswith("other     version 3: 60 rows, too few to test: 200 are needed")
    assert lines[2].startswith(f"other     version 1: 240 rows: drift in {SHIFTED}")
    verdicts = [local.version(name, number).tags[DRIFT_TAG] for number in (1, 2, 3)]
    assert verdicts[0].startswith(f"drift: {SHIFTED}")
    assert verdicts[1:] == ["none", "unknown"]
    run = local.client.get_run(lines[-1].split()[1])
    plots = Path(run.info.artifact_uri.removeprefix("file://"), "plots")
    assert sorted(folder.name for folder in plots.iterdir()) == ["version-1", "version-2"]


def test_rows_of_other_versions_alone_leave_the_verdict_unknown(
    local: Place, model: str, tmp_path: Path
) -> None:
    stages.move_alias(local.client, model, "production", 2)
    result = run_monitor(model, write_log(tmp_path / "log", model, LogPart(1, *flowers(shift=3))))
    assert (result.analysis.version, result.analysis.verdict(), result.analysis.rows) == (2, "unknown", 0)
    assert [(f.version, f.verdict()) for f in result.other_versions] == [(1, "drift")]


def test_rows_that_name_no_version_count_for_the_one_in_the_stage(
    local: Place, model: str, tmp_path: Path
) -> None:
    rows, right = flowers(400)
    versions = [1.0] * 250 + [np.nan] * 150
    rows.assign(prediction=right, model_version=versions).to_parquet(tmp_path / "now.parquet")
    assert run_monitor(model, tmp_path / "now.parquet").analysis.rows == 400


def test_predictions_of_another_model_are_refused_or_left_out(
    local: Place, model: str, tmp_path: Path, capsys: Any
) -> None:
    log = write_log(tmp_path / "log", "another", LogPart(1, *flowers(shift=3)))
    code = main(["monitor", "--name", model, "--current", str(log / "another")])
    out, err = capsys.readouterr()
    assert code in {0, 1}, out
    assert out.startswith("unknown") if code == 0 else "another" in err


def foreign(place: Place, name: str) -> int:
    """Register a version by other means: a run that left no evidence."""
    run_id = runs.start(place.client, "by hand", "", {})
    runs.finish(place.client, run_id)
    trained = place.client.get_model_version("trained", "1")
    return registry.register(
        place.client, name, source=trained.source, run_id=run_id, description="", tags={}
    )


def test_a_version_without_a_baseline_cannot_be_monitored(
    local: Place, model: str, tmp_path: Path, capsys: Any
) -> None:
    stages.move_alias(local.client, model, "production", foreign(local, model))
    log = write_log(tmp_path / "log", model, LogPart(3, *flowers()))
    (line,) = monitor_output(capsys, "--name", model, "--current", log, code=1)
    assert f"{model} version 3 has no training baseline to compare with" in line
    assert local.client.get_experiment_by_name(f"{model}-monitoring") is None


def test_rows_of_a_version_without_a_baseline_are_reported_and_the_others_compared(
    local: Place, model: str, tmp_path: Path
) -> None:
    other = foreign(local, model)
    parts = (LogPart(other, *flowers(70)), LogPart(1, *flowers()), LogPart(9, *flowers(50)))
    result = run_monitor(model, write_log(tmp_path / "log", model, *parts))
    assert result.analysis.verdict() == "none"
    assert len(result.notes) == 2
    assert f"70 rows of version {other}: {model} version {other} has no training baseline" in result.notes[0]
    assert "50 rows of version 9: " in result.notes[1]


@pytest.mark.slow
def test_a_version_that_predicts_other_class_names_does_not_stop_the_run(
    local: Place, model: str, tmp_path: Path
) -> None:
    other = foreign(local, model)
    rows, right = flowers(70)
    parts = (LogPart(other, rows, right, named=False), LogPart(1, *flowers()))
    result = run_monitor(model, write_log(tmp_path / "log", model, *parts))
    assert (result.analysis.rows, result.analysis.verdict()) == (240, "none")


def test_a_version_whose_column_was_of_another_type_does_not_stop_the_run(
    local: Place, model: str, tmp_path: Path
) -> None:
    rows, right = flowers(70)
    rows[SHIFTED] = "long"
    parts = (LogPart(2, rows, right), LogPart(1, *flowers()))
    result = run_monitor(model, write_log(tmp_path / "log", model, *parts))
    assert (result.analysis.rows, result.analysis.verdict()) == (240, "none")


def evidence(place: Place, name: str, version: int) -> Path:
    """Return the folder where the evidence of a version lies, or would."""
    run_id = place.version(name, version).run_id
    uri = place.client.get_run(run_id).info.artifact_uri
    return Path(uri.removeprefix("file://")) / manifest.EVIDENCE


def spoilt(place: Place, name: str) -> int:
    """Register a version whose baseline is not readable."""
    number = foreign(place, name)
    folder = evidence(place, name, number)
    folder.mkdir(parents=True)
    (folder / baseline.PROFILE_FILE).write_text("{")
    for name in (baseline.SAMPLE_FILE, baseline.OUTCOMES_FILE):
        (folder / name).write_bytes(b"")
    return number


def test_an_unreadable_baseline_is_reported_in_one_line(
    local: Place, model: str, tmp_path: Path, capsys: Any
) -> None:
    stages.move_alias(local.client, model, "production", spoilt(local, model))
    log = write_log(tmp_path / "log", model, LogPart(3, *flowers()))
    (line,) = monitor_output(capsys, "--name", model, "--current", log, code=1)
    assert "evidence/baseline.json is not readable" in line


@pytest.mark.slow
def test_an_unreadable_baseline_of_another_version_does_not_stop_the_run(
    local: Place, model: str, tmp_path: Path
) -> None:
    other = spoilt(local, model)
    log = write_log(tmp_path / "log", model, LogPart(other, *flowers(70)), LogPart(1, *flowers()))
    result = run_monitor(model, log)
    assert result.analysis.verdict() == "none"
    assert "evidence/baseline.json is not readable" in result.notes[0]


def test_a_baseline_that_was_changed_after_registration_is_refused(
    local: Place, model: str, tmp_path: Path, capsys: Any
) -> None:
    log = write_log(tmp_path / "log", model, LogPart(1, *flowers()))
    path = evidence(local, model, 1) / baseline.PROFILE_FILE
    before = path.read_text()
    path.write_text(before + " ")
    try:
        (line,) = monitor_output(capsys, "--name", model, "--current", log, code=1)
    finally:
        path.write_text(before)
    assert "evidence/baseline.json was changed; restore" in line


# Processes.


def test_an_interrupted_monitoring_run_has_the_status_killed(
    local: Place, model: str, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(report, report.write_report.__name__, interrupted)
    log = write_log(tmp_path / "log", model, LogPart(1, *flowers()))
    assert main(["monitor", "--name", model, "--current", str(log)]) == 130
    assert capsys.readouterr().err.strip() == "pipeline: error: interrupted"
    run = last_run(local, model)
    assert run.info.status == "KILLED"
    assert run.data.tags["error"] == "interrupted"


def test_the_run_of_a_killed_monitor_is_ended_by_the_next_run(
    local: Place, model: str, tmp_path: Path
) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    here = {"host": socket.gethostname()}
    killed, alive, elsewhere = (
        runs.start(local.client, f"{model}-monitoring", "", tags)
        for tags in (
            {**here, "process": str(ended.pid)},
            {**here, "process": str(os.getpid())},
            {"host": "elsewhere", "process": str(ended.pid)},
        )
    )
    (tmp_path / "log").mkdir()
    run_monitor(model, tmp_path / "log")
    status = [local.client.get_run(run).info.status for run in (killed, alive, elsewhere)]
    assert status == ["KILLED", "RUNNING", "RUNNING"]


def test_a_missing_model_or_stage_is_reported_in_one_line(
    local: Place, model: str, tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "log").mkdir()
    (line,) = monitor_output(capsys, "--name", "nobody", "--current", "log", code=1)
    assert "nobody" in line
    (line,) = monitor_output(capsys, "--name", model, "--stage", "shadow", "--current", "log", code=1)
    assert "shadow" in line


Start = Callable[..., "subprocess.Popen[bytes]"]


MONITOR = (sys.executable, "-m", "pipeline", "monitor")


@pytest.mark.slow
def test_a_monitor_interrupted_during_retraining_leaves_the_stage_and_reports_it(
    local: Place, model: str, start: Start, tmp_path: Path
) -> None:
    log = write_log(tmp_path / "log", model, LogPart(1, *flowers(240, shift=2)))
    table = grown_table(tmp_path, count=200_000)
    options = ("--name", model, "--current", str(log), "--retrain", str(table))
    process = start(*MONITOR, *options, "--promote", "true")
    eventually(lambda: has_runs(local, model, 2), 60)  # the training has begun
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=120) == 130
    assert last_run(local, model).info.status == "KILLED"
    assert stages.stage_holder(local.client, model, "production") == 1


def has_runs(place: Place, name: str, count: int) -> bool:
    """Tell whether there is a run of a training of this model, beside those of monitoring."""
    found = [place.client.get_experiment_by_name(each) for each in (name, f"{name}-monitoring")]
    ids = [experiment.experiment_id for experiment in found if experiment is not None]
    return len(ids) == count and len(place.client.search_runs(ids)) > count


@LONG
@pytest.mark.slow
def test_two_monitors_at_once_start_one_retraining(
    local: Place, model: str, start: Start, tmp_path: Path
) -> None:
    log = write_log(tmp_path / "log", model, LogPart(1, *flowers(240, shift=2)))
    options = ("--name", model, "--current", str(log), "--retrain", str(grown_table(tmp_path)))
    both = [start(*MONITOR, *options, "--promote", "true") for _ in range(2)]
    assert [process.wait(timeout=100) for process in both] == [4, 4]
    versions = registry.list_versions(local.client, model)
    assert [version.version for version in versions] == [3, 2, 1]
    printed = "".join(path.read_text() for path in sorted(tmp_path.glob("process-*.log")))
    assert printed.count("retrain   done") == 1
    assert printed.count("retrain   not started") == 1
    assert local.holder(model) == 3


@LONG
@pytest.mark.usefixtures("passing")
@pytest.mark.slow
def test_two_monitors_at_once_roll_back_once(local: Place, start: Start, tmp_path: Path) -> None:
    name = promoted_versions(local, GOOD, EQUAL, GOOD)
    rows, right = flowers()
    log = write_log(tmp_path / "log", name, LogPart(3, rows, right))
    wrong = [NAMES[(NAMES.index(each) + 1) % 3] for each in right]
    table = pd.DataFrame({"request_id": [f"0-{n}" for n in range(240)], "label": wrong})
    table.to_csv(tmp_path / "labels.csv", index=False)
    options = ("--name", name, "--current", str(log), "--labels", "labels.csv")
    both = [start(*MONITOR, *options, "--rollback", "true") for _ in range(2)]
    codes = [process.wait(timeout=100) for process in both]
    assert 4 in codes
    assert local.holder(name) == 2
    done = [event for event in history.list_events(local.client, name) if event.action == "rollback"]
    assert [act.outcome for act in done].count("applied") == 1


@LONG
@pytest.mark.slow
def test_a_killed_monitor_is_ended_by_the_next(
    local: Place, model: str, start: Start, tmp_path: Path
) -> None:
    log = write_log(tmp_path / "log", model, LogPart(1, *flowers(240, shift=2)))
    table = grown_table(tmp_path, count=200_000)
    process = start(*MONITOR, "--name", model, "--current", log, "--retrain", table)
    eventually(lambda: has_runs(local, model, 2), 60)
    process.kill()
    process.wait(timeout=120)
    killed = last_run(local, model)
    assert killed.info.status == "RUNNING"
    time.sleep(0.1)
    result: MonitorResult = run_monitor(model, log, retrain=str(table))
    assert local.client.get_run(killed.info.run_id).info.status == "KILLED"
    assert action_outcomes(result) == [
        ("retrain", "not started")
    ]  # its cooldown holds, as after one that failed


@LONG
@pytest.mark.slow
def test_the_project_runs_the_monitor_and_ends_as_it_did(local: Place, tmp_path: Path) -> None:
    name = local.model(GOOD)
    stages.move_alias(local.client, name, "production", 1)
    for shift, code in ((0, 0), (2, 1)):  # MLflow has one exit code for all that is not 0
        log = write_log(tmp_path / f"log-{shift}", name, LogPart(1, *flowers(240, shift=shift)))
        done = subprocess.run(
            [
                *(BIN / "mlflow", "run", ROOT, "-e", "monitor", "--env-manager", "local"),
                *("-P", f"name={name}", "-P", f"current={log}"),
            ],
            capture_output=True,
            text=True,
            timeout=100,
            env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"},
        )
        assert done.returncode == code, done.stderr
        assert ("DRIFT" in done.stdout) == (code == 1)
