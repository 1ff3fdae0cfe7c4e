"""The actions on drift: rollback, retraining, promotion, and the lock of retrainings."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.cli import main
from pipeline.monitoring import actions
from pipeline.monitoring.run_log import CAUSE_TAG, MonitoringRun
from pipeline.params.definitions import MonitorParams
from registry_tools.data.row_hash import hash_rows, unit_interval
from registry_tools.mlflow_store import runs, stages
from registry_tools.promotion import history
from tests.support.monitored import (
    NAMES,
    SHIFTED,
    LogPart,
    action_outcomes,
    flowers,
    grown_table,
    labelled,
    monitor_output,
    promoted_versions,
    run_monitor,
    run_of,
    write_log,
)
from tests.support.registries import EQUAL, GOOD, Place

# Rollback.


@pytest.mark.slow
@pytest.mark.usefixtures("passing")
def test_a_fallen_accuracy_rolls_back_and_the_history_names_the_run(
    local: Place, tmp_path: Path, capsys: Any
) -> None:
    name = promoted_versions(local, GOOD, EQUAL)
    rows, right = flowers(240)
    log = write_log(tmp_path / "log", name, LogPart(2, rows, right))
    path = labelled(tmp_path, right, wrong=120)
    lines = monitor_output(
        capsys, "--name", name, "--current", log, "--labels", path, "--rollback", "true", code=4
    )
    assert "rollback  done: production: version 2 → 1" in lines
    assert local.holder(name) == 1
    newest = history.list_events(local.client, name, limit=1)[0]
    run_id = lines[-1].split()[1]
    assert (newest.action, newest.outcome, newest.version) == ("rollback", "applied", 1)
    assert newest.reason == f"live accuracy fell, monitoring run {run_id}"
    assert "version 2 → 1" in local.client.get_run(run_id).data.tags["rollback"]


def test_a_steady_accuracy_starts_no_rollback(local: Place, model: str, tmp_path: Path) -> None:
    rows, right = flowers(240, shift=2)
    log = write_log(tmp_path / "log", model, LogPart(1, rows, right))
    result = run_monitor(model, log, labels=str(labelled(tmp_path, right, wrong=5)), rollback=True)
    assert result.analysis.has_drift
    assert result.actions == ()
    assert history.list_events(local.client, model, stage="production") == []


def test_a_rollback_without_an_earlier_version_is_reported(local: Place, model: str, tmp_path: Path) -> None:
    rows, right = flowers(240)
    log = write_log(tmp_path / "log", model, LogPart(1, rows, right))
    path = labelled(tmp_path, right, wrong=120)
    result = run_monitor(model, log, labels=str(path), rollback=True)
    assert action_outcomes(result) == [("rollback", "failed")]
    run = run_of(local, result)
    assert run.info.status == "FINISHED"
    assert "it held no other version before" in run.data.tags["rollback"]
    assert stages.stage_holder(local.client, model, "production") == 1


@pytest.mark.slow
@pytest.mark.usefixtures("passing")
def test_two_rollbacks_at_once_roll_back_only_once(local: Place, tmp_path: Path) -> None:
    name = promoted_versions(local, GOOD, EQUAL, GOOD)
    params = MonitorParams(name=name, current="log", labels="labels.csv", rollback=True)
    with ThreadPoolExecutor(2) as threads:
        asked = [threads.submit(actions.roll_back, local.client, params, 3, f"run-{n}") for n in range(2)]
    outcomes = sorted(each.result()[0].outcome for each in asked)
    assert outcomes == ["done", "failed"]
    assert local.holder(name) == 2


@pytest.mark.usefixtures("passing")
@pytest.mark.slow
def test_a_candidate_is_compared_with_the_version_after_the_rollback(local: Place, tmp_path: Path) -> None:
    name = promoted_versions(local, GOOD, EQUAL)
    rows, right = flowers(240, shift=2)
    log = write_log(tmp_path / "log", name, LogPart(2, rows, right))
    path, table = labelled(tmp_path, right, wrong=120), grown_table(tmp_path)
    result = run_monitor(name, log, labels=str(path), rollback=True, retrain=str(table), promote=True)
    assert action_outcomes(result) == [("rollback", "done"), ("retrain", "done"), ("promote", "done")]
    assert result.actions[2].message == "production: version 1 → 3"
    assert local.holder(name) == 3


# A candidate.


def poisoned(folder: Path, count: int = 4000) -> Path:
    """Write a table whose training rows have other labels than its held-out rows."""
    rows, right = flowers(count, seed=5)
    rows = (rows + np.random.default_rng(6).normal(0, 0.05, rows.shape)).round(3)
    right_table = rows.assign(species=right)
    wrong = {name: NAMES[(NAMES.index(name) + 1) % 3] for name in NAMES}
    wrong_table = rows.assign(species=[wrong[name] for name in right])
    is_held_out = unit_interval(hash_rows(rows), 42) < 0.2
    path = folder / "poisoned.parquet"
    kept = [right_table[is_held_out], wrong_table[~is_held_out].head(900)]
    pd.concat(kept, ignore_index=True).to_parquet(path, index=False)
    return path


@pytest.fixture
def shifted_log(model: str, tmp_path: Path) -> Path:
    return write_log(tmp_path / "log", model, LogPart(1, *flowers(240, shift=2)))


@pytest.mark.slow
@pytest.mark.usefixtures("passing")
def test_a_candidate_is_trained_for_staging_and_evaluated_without_a_promotion(
    local: Place, model: str, shifted_log: Path, tmp_path: Path, capsys: Any
) -> None:
    table = grown_table(tmp_path)
    lines = monitor_output(capsys, "--name", model, "--current", shifted_log, "--retrain", table, code=4)
    assert stages.stage_holder(local.client, model, "production") == 1
    assert stages.stage_holder(local.client, model, "staging") == 3
    results = {line.split()[0]: line for line in lines}
    assert re.search(r"done: version 3 in staging, accuracy [01]\.\d{4} on", results["retrain"])
    assert "not started: version 3: it passes the gates; to promote it, run" in results["promote"]
    candidate = local.version(model, 3)
    assert candidate.tags[CAUSE_TAG] == lines[-1].split()[1]
    assert (candidate.params["split"], candidate.params["data"]) == ("hash", str(table))
    assert candidate.params["target"] == "species"
    assert history.list_events(local.client, model, stage="production") == []


@pytest.mark.usefixtures("passing")
def test_a_candidate_is_promoted_and_the_history_names_the_run(
    local: Place, model: str, shifted_log: Path, tmp_path: Path
) -> None:
    result = run_monitor(model, shifted_log, retrain=str(grown_table(tmp_path)), promote=True)
    assert action_outcomes(result) == [("retrain", "done"), ("promote", "done")]
    assert local.holder(model) == 3
    newest = history.list_events(local.client, model, limit=1)[0]
    assert (newest.action, newest.outcome, newest.version) == ("promote", "applied", 3)
    assert newest.reason.startswith(f"drift in {SHIFTED}")
    assert newest.reason.endswith(f", monitoring run {result.run_id}")
    tags = run_of(local, result).data.tags
    assert tags["promote"] == "done: production: version 1 → 3"


@pytest.mark.slow
def test_a_worse_candidate_is_not_promoted_and_the_run_names_the_reason(
    local: Place, model: str, shifted_log: Path, tmp_path: Path, capsys: Any
) -> None:
    table = poisoned(tmp_path)
    options = ("--name", model, "--current", shifted_log, "--retrain", table, "--promote", "true")
    lines = monitor_output(capsys, *options, code=4)
    assert stages.stage_holder(local.client, model, "production") == 1
    assert stages.stage_holder(local.client, model, "staging") == 3
    results = next(line for line in lines if line.startswith("promote"))
    assert "refused:" in results
    assert "champion:" in results
    run = local.client.get_run(lines[-1].split()[1])
    assert run.info.status == "FINISHED"
    assert run.data.tags["promote"].startswith("refused:")
    assert "champion:" in run.data.tags["mlflow.note.content"]
    newest = history.list_events(local.client, model, limit=1)[0]
    assert (newest.outcome, run.info.run_id in newest.reason) == ("refused", True)


@pytest.mark.slow
def test_a_candidate_that_passes_the_gates_is_promoted(
    local: Place, model: str, shifted_log: Path, tmp_path: Path
) -> None:
    result = run_monitor(model, shifted_log, retrain=str(grown_table(tmp_path)), promote=True)
    assert action_outcomes(result) == [("retrain", "done"), ("promote", "done")]
    newest = history.list_events(local.client, model, limit=1)[0]
    assert {gate["gate"]: gate["passed"] for gate in newest.gates}["champion"]
    assert run_monitor(model, shifted_log).analysis.version == 3


@pytest.mark.slow
def test_a_worse_candidate_is_reported_without_a_promotion_as_well(
    local: Place, model: str, shifted_log: Path, tmp_path: Path
) -> None:
    result = run_monitor(model, shifted_log, retrain=str(poisoned(tmp_path)))
    assert action_outcomes(result) == [("retrain", "done"), ("promote", "refused")]
    assert "champion:" in result.actions[1].message
    assert history.list_events(local.client, model, stage="production") == []


def test_a_failed_retraining_leaves_the_stage_and_is_reported(
    local: Place, model: str, shifted_log: Path, tmp_path: Path, capsys: Any
) -> None:
    table = tmp_path / "one.csv"
    flowers(50)[0].assign(species="setosa").to_csv(table, index=False)
    options = ("--name", model, "--current", shifted_log, "--retrain", table, "--promote", "true")
    lines = monitor_output(capsys, *options, code=4)
    results = next(line for line in lines if line.startswith("retrain"))
    assert "failed: target=species:" in results
    assert "has only the class 'setosa'; two are needed" in results
    assert not [line for line in lines if line.startswith("promote")]
    assert stages.stage_holder(local.client, model, "production") == 1
    assert stages.stage_holder(local.client, model, "staging") is None
    run = local.client.get_run(lines[-1].split()[1])
    assert run.info.status == "FINISHED"
    assert run.data.tags["retrain"].startswith("failed: target=species")


def test_a_table_that_cannot_be_trained_on_does_not_stop_the_monitoring_run(
    local: Place, model: str, shifted_log: Path, tmp_path: Path, capsys: Any
) -> None:
    table = tmp_path / "less.csv"
    flowers(50)[0].drop(columns=SHIFTED).assign(species="setosa").to_csv(table, index=False)
    for given, why in (
        (table, f"the table has no column '{SHIFTED}', a feature of {model} version 1"),
        (tmp_path / "absent.csv", "no such file or folder"),
    ):
        options = ("--name", model, "--current", shifted_log, "--retrain", given)
        assert main(["monitor", *map(str, options)]) == 4
        out, _ = capsys.readouterr()
        assert "retrain   failed: " in out
        assert why in out
        assert stages.stage_holder(local.client, model, "production") == 1


def test_without_drift_nothing_is_trained(local: Place, model: str, tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", model, LogPart(1, *flowers()))
    result = run_monitor(model, log, retrain=str(grown_table(tmp_path)), promote=True)
    assert result.actions == ()
    assert stages.stage_holder(local.client, model, "staging") is None


def test_a_second_run_within_the_cooldown_trains_nothing(
    local: Place, model: str, shifted_log: Path, tmp_path: Path
) -> None:
    first = open_run(local, model)
    assert first.lock_retraining("production", DAY) is None
    again = run_monitor(model, shifted_log, retrain=str(grown_table(tmp_path)))
    assert action_outcomes(again) == [("retrain", "not started")]
    assert first.run_id in again.actions[0].message
    assert "cooldown=1d" in again.actions[0].message
    assert stages.stage_holder(local.client, model, "staging") is None


def open_run(local: Place, name: str) -> MonitoringRun:
    return MonitoringRun(local.client, name, {})


DAY = timedelta(days=1)


def test_a_retraining_is_locked_again_after_the_cooldown(local: Place, model: str) -> None:
    first, second, third = (open_run(local, model) for _ in range(3))
    assert first.lock_retraining("production", DAY) is None
    assert first.run_id in str(second.lock_retraining("production", DAY))
    assert second.lock_retraining("production", timedelta(0)) is None
    assert second.run_id in str(third.lock_retraining("production", DAY))


def test_each_stage_has_its_own_cooldown(local: Place, model: str) -> None:
    assert open_run(local, model).lock_retraining("production", DAY) is None
    assert open_run(local, model).lock_retraining("shadow", DAY) is None


def test_one_of_many_concurrent_runs_locks_the_retraining(local: Place, model: str) -> None:
    open_runs = [open_run(local, model) for _ in range(6)]
    with ThreadPoolExecutor(6) as threads:
        results = list(threads.map(lambda r: r.lock_retraining("production", DAY), open_runs))
    (winner,) = [r for r, result in zip(open_runs, results, strict=True) if result is None]
    assert all(winner.run_id in result for result in results if result is not None)


def earlier_retraining(local: Place, model: str, at: datetime) -> str:
    """Create the run of a retraining, with a start time relative to the present."""
    before = open_run(local, model)
    experiment = local.client.get_run(before.run_id).info.experiment_id
    run = local.client.create_run(experiment, start_time=int(at.timestamp() * 1000))
    before.run_id = run.info.run_id
    assert before.lock_retraining("production", DAY) is None
    return str(run.info.run_id)


def test_a_retraining_dated_years_ahead_does_not_block_the_next(local: Place, model: str) -> None:
    earlier_retraining(local, model, datetime.now(timezone.utc) + timedelta(days=900))
    assert open_run(local, model).lock_retraining("production", DAY) is None


def test_a_retraining_dated_slightly_ahead_starts_the_cooldown(local: Place, model: str) -> None:
    ahead = datetime.now(timezone.utc) + timedelta(minutes=10)
    before = earlier_retraining(local, model, ahead)
    results = str(open_run(local, model).lock_retraining("production", DAY))
    assert before in results
    assert f"retrained at {ahead:%Y-%m-%d %H:%M} UTC, and cooldown=1d is not over" in results


def test_a_retraining_whose_run_was_deleted_does_not_block_the_next(local: Place, model: str) -> None:
    before = earlier_retraining(local, model, datetime.now(timezone.utc))
    assert "is not over" in str(open_run(local, model).lock_retraining("production", DAY))
    local.client.delete_run(before)
    assert open_run(local, model).lock_retraining("production", DAY) is None


@pytest.mark.slow
@pytest.mark.usefixtures("passing")
def test_the_run_opened_by_mlflow_links_to_the_monitoring_run_and_is_not_trained_in(
    local: Place, model: str, shifted_log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = runs.start(local.client, "of the project", "", {})
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    result = run_monitor(model, shifted_log, retrain=str(grown_table(tmp_path)))
    run = local.client.get_run(run_id)
    assert run.data.tags[CAUSE_TAG] == result.run_id
    assert local.version(model, 3).run_id not in {run_id, result.run_id}
