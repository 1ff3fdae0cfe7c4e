"""Windows, logs, versions and processes as they should not be: what the monitor makes of them."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from places import EQUAL, GOOD, POOR, Place
from servers import BIN, eventually
from test_monitor import (
    NAMES,
    SHIFTED,
    Part,
    acts,
    few_panels,  # noqa: F401 - a fixture
    flowers,
    grown,
    held,
    look,
    passing,  # noqa: F401 - a fixture
    run_of,
    told,
    write_log,
)

from pipeline.cli import main
from pipeline.monitor import MonitorResult
from pipeline.monitoring import reference, report
from pipeline.params import TrainParams
from pipeline.train import train
from registry_tools import history, integrity, registry, runs
from registry_tools.drift_tags import DRIFT_TAG


def last_run(place: Place, name: str) -> Any:
    experiment = place.client.get_experiment_by_name(f"{name}-monitoring")
    return place.client.search_runs([experiment.experiment_id], max_results=1)[0]


# Nothing, or half of it.


def empty_folder(path: Path) -> Path:
    path.mkdir()
    return path


def no_rows(path: Path) -> Path:
    return write_log(path, "another", Part(1, *flowers(0)))  # and of another model at that


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
    return next((write_log(path, "x", Part(1, *flowers(0))) / "x").iterdir())


@pytest.mark.parametrize(
    "make", [empty_folder, no_rows, header, header_of_scored, no_row, logged_nothing]
)
def test_an_empty_window_is_unknown_and_no_drift(
    make: Callable[[Path], Path], local: Place, model: str, tmp_path: Path, capsys: Any
) -> None:
    first, last = told(capsys, "--name", model, "--current", make(tmp_path / "now"))
    assert first.startswith(f"unknown   {model} version 1 in production: 0 rows, 200 needed")
    run = local.client.get_run(last.split()[1])
    assert (run.info.status, run.data.tags["verdict"]) == ("FINISHED", "unknown")
    assert local.version(model, 1).tags[DRIFT_TAG] == "unknown"


def test_an_empty_window_with_labels_is_unknown(
    local: Place, model: str, tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "log").mkdir()
    pd.DataFrame({"request_id": ["1"], "label": "setosa"}).to_csv("labels.csv", index=False)
    options = ("--name", model, "--current", "log", "--labels", "labels.csv")
    assert told(capsys, *options)[0].startswith("unknown")


def test_what_is_being_written_is_not_read(local: Place, model: str, tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", model, Part(1, *flowers()))
    whole = next((log / model).iterdir()).read_bytes()
    (log / model / ".20260101T000009-version-1-1-9.parquet.part").write_bytes(whole[:700])
    (log / model / ".20260101T000009-version-1-1-8.parquet").write_bytes(whole[:700])
    result = look(model, log)
    assert (result.findings.rows, result.findings.verdict(), result.notes) == (240, "none", ())


def test_a_file_that_was_cut_off_is_left_out_and_told(
    local: Place, model: str, tmp_path: Path, capsys: Any
) -> None:
    log = write_log(tmp_path / "log", model, *[Part(1, *flowers(seed=n)) for n in range(3)])
    torn = sorted((log / model).iterdir())[1]
    torn.write_bytes(torn.read_bytes()[:-100])
    (log / model / "20260101-empty.parquet").write_bytes(b"")
    lines = told(capsys, "--name", model, "--current", log)
    assert "480 rows: no drift" in lines[0]
    assert f"note      {torn.name} is not readable, and was left out" in lines
    assert "note      20260101-empty.parquet is not readable, and was left out" in lines
    run = local.client.get_run(lines[-1].split()[1])
    page = Path(run.info.artifact_uri.removeprefix("file://"), "report.html").read_text()
    assert f"{torn.name} is not readable, and was left out" in page


def test_a_log_of_which_nothing_is_readable_is_told_in_a_line(
    local: Place, model: str, tmp_path: Path, capsys: Any
) -> None:
    folder = tmp_path / "log" / model
    folder.mkdir(parents=True)
    (folder / "torn.parquet").write_bytes(b"PAR1")
    (said,) = told(capsys, "--name", model, "--current", "log", code=1)
    assert "none of its files is readable, such as torn.parquet" in said
    (said,) = told(capsys, "--name", model, "--current", folder / "torn.parquet", code=1)
    assert "torn.parquet: not readable as Parquet" in said
    (said,) = told(capsys, "--name", model, "--current", "nowhere", code=1)
    assert "nowhere: there is no such file or folder" in said


# Versions.


def test_rows_of_three_versions_are_each_compared_with_the_reference_of_their_own(
    local: Place, tmp_path: Path, capsys: Any
) -> None:
    name = local.model(GOOD, EQUAL, POOR)
    registry.move_alias(local.client, name, "production", 2)
    rows, right = flowers(240, seed=1)
    log = write_log(
        tmp_path / "log",
        name,
        Part(1, *flowers(240, shift=3)),
        Part(2, rows, right),
        Part(3, *flowers(60)),
        Part(2, *flowers(240, seed=2)),
    )
    lines = told(capsys, "--name", name, "--current", log)  # the one in the stage decides
    assert lines[0].startswith(f"none      {name} version 2 in production: 480 rows: no drift")
    assert lines[1].startswith("beside    version 3: 60 rows, 200 needed")
    assert lines[2].startswith(f"beside    version 1: 240 rows: drift in {SHIFTED}")
    verdicts = [local.version(name, number).tags[DRIFT_TAG] for number in (1, 2, 3)]
    assert verdicts[0].startswith(f"drift: {SHIFTED}")
    assert verdicts[1:] == ["none", "unknown"]
    run = local.client.get_run(lines[-1].split()[1])
    plots = Path(run.info.artifact_uri.removeprefix("file://"), "plots")
    assert sorted(folder.name for folder in plots.iterdir()) == ["version-1", "version-2"]


def test_rows_of_other_versions_alone_say_nothing_of_the_one_in_the_stage(
    local: Place, model: str, tmp_path: Path
) -> None:
    registry.move_alias(local.client, model, "production", 2)
    result = look(model, write_log(tmp_path / "log", model, Part(1, *flowers(shift=3))))
    assert (result.version, result.findings.verdict(), result.findings.rows) == (2, "unknown", 0)
    assert [(f.version, f.verdict()) for f in result.others] == [(1, "drift")]


def test_rows_that_do_not_say_who_answered_count_for_the_one_in_the_stage(
    local: Place, model: str, tmp_path: Path
) -> None:
    rows, right = flowers(400)
    versions = [1.0] * 250 + [np.nan] * 150
    rows.assign(prediction=right, model_version=versions).to_parquet(tmp_path / "now.parquet")
    assert look(model, tmp_path / "now.parquet").findings.rows == 400


def test_what_another_model_answered_is_not_taken_for_this_ones(
    local: Place, model: str, tmp_path: Path, capsys: Any
) -> None:
    log = write_log(tmp_path / "log", "another", Part(1, *flowers(shift=3)))
    code = main(["monitor", "--name", model, "--current", str(log / "another")])
    out, err = capsys.readouterr()
    assert code in {0, 1}, out
    assert out.startswith("unknown") if code == 0 else "another" in err


def foreign(place: Place, name: str) -> int:
    """Register a version by other means: a run that left no evidence."""
    run_id = runs.start(place.client, "by hand", {})
    runs.finish(place.client, run_id)
    trained = place.client.get_model_version("trained", "1")
    return registry.register(
        place.client, name, source=trained.source, run_id=run_id, description="", tags={}
    )


def test_a_version_without_a_reference_cannot_be_watched(
    local: Place, model: str, tmp_path: Path, capsys: Any
) -> None:
    registry.move_alias(local.client, model, "production", foreign(local, model))
    log = write_log(tmp_path / "log", model, Part(3, *flowers()))
    (said,) = told(capsys, "--name", model, "--current", log, code=1)
    assert f"{model} version 3 has no reference to compare with" in said
    assert local.client.get_experiment_by_name(f"{model}-monitoring") is None


def test_rows_of_a_version_without_a_reference_are_told_and_the_others_compared(
    local: Place, model: str, tmp_path: Path
) -> None:
    other = foreign(local, model)
    parts = (Part(other, *flowers(70)), Part(1, *flowers()), Part(9, *flowers(50)))
    result = look(model, write_log(tmp_path / "log", model, *parts))
    assert result.findings.verdict() == "none"
    assert len(result.notes) == 2
    assert f"70 rows of version {other}: {model} version {other} has no ref" in result.notes[0]
    assert "50 rows of version 9: " in result.notes[1]


def test_a_version_that_answers_in_other_words_does_not_stop_the_look(
    local: Place, model: str, tmp_path: Path
) -> None:
    other = foreign(local, model)
    rows, right = flowers(70)
    parts = (Part(other, rows, right, named=False), Part(1, *flowers()))
    result = look(model, write_log(tmp_path / "log", model, *parts))
    assert (result.findings.rows, result.findings.verdict()) == (240, "none")


def test_a_version_whose_column_was_of_another_type_does_not_stop_the_look(
    local: Place, model: str, tmp_path: Path
) -> None:
    rows, right = flowers(70)
    rows[SHIFTED] = "long"
    parts = (Part(2, rows, right), Part(1, *flowers()))
    result = look(model, write_log(tmp_path / "log", model, *parts))
    assert (result.findings.rows, result.findings.verdict()) == (240, "none")


def evidence(place: Place, name: str, version: int) -> Path:
    """Return the folder where the evidence of a version lies, or would."""
    run_id = place.version(name, version).run_id
    uri = place.client.get_run(run_id).info.artifact_uri
    return Path(uri.removeprefix("file://")) / integrity.EVIDENCE


def spoilt(place: Place, name: str) -> int:
    """Register a version whose reference is not readable."""
    number = foreign(place, name)
    folder = evidence(place, name, number)
    folder.mkdir(parents=True)
    (folder / reference.PROFILE).write_text("{")
    (folder / reference.SAMPLE).write_bytes(b"")
    return number


def test_a_reference_that_is_not_readable_is_told_in_a_line(
    local: Place, model: str, tmp_path: Path, capsys: Any
) -> None:
    registry.move_alias(local.client, model, "production", spoilt(local, model))
    log = write_log(tmp_path / "log", model, Part(3, *flowers()))
    (said,) = told(capsys, "--name", model, "--current", log, code=1)
    assert "evidence/reference.json is not readable" in said


def test_an_unreadable_reference_of_another_version_does_not_stop_the_look(
    local: Place, model: str, tmp_path: Path
) -> None:
    other = spoilt(local, model)
    log = write_log(tmp_path / "log", model, Part(other, *flowers(70)), Part(1, *flowers()))
    result = look(model, log)
    assert result.findings.verdict() == "none"
    assert "evidence/reference.json is not readable" in result.notes[0]


# Columns.


def test_a_renamed_column_is_told_with_both_names(
    local: Place, model: str, tmp_path: Path, capsys: Any
) -> None:
    rows, right = flowers()
    renamed = rows.rename(columns={SHIFTED: "sepal_length"})
    renamed.to_csv(tmp_path / "now.csv", index=False)
    log = write_log(tmp_path / "log", model, Part(1, renamed, right))
    for current in ("now.csv", log):
        (said,) = told(capsys, "--name", model, "--current", current, code=1)
        assert said == (
            f"pipeline: error: the rows have no column '{SHIFTED}', which the version takes; "
            "'sepal_length' stands there instead: was it renamed?"
        )
    run = last_run(local, model)
    assert run.info.status == "FAILED"
    assert SHIFTED in run.data.tags["error"]


def test_missing_columns_are_all_named(
    local: Place, model: str, tmp_path: Path, capsys: Any
) -> None:
    flowers()[0].iloc[:, 2:].to_csv(tmp_path / "now.csv", index=False)
    (said,) = told(capsys, "--name", model, "--current", "now.csv", code=1)
    assert f"the rows have no columns '{SHIFTED}', 'sepal width (cm)', which the version" in said
    assert "instead" not in said


def test_a_column_that_the_training_did_not_have_does_not_matter(
    local: Place, model: str, tmp_path: Path
) -> None:
    rows = flowers()[0].assign(id=range(240), note="x")
    rows.to_csv(tmp_path / "now.csv", index=False)
    assert look(model, tmp_path / "now.csv").findings.verdict() == "none"


@pytest.mark.parametrize("form", ["csv", "log"])
def test_text_where_numbers_were_is_told_in_a_line(
    form: str, local: Place, model: str, tmp_path: Path, capsys: Any
) -> None:
    rows, right = flowers()
    rows[SHIFTED] = "5,1"
    if form == "csv":
        rows.to_csv(tmp_path / "now.csv", index=False)
    else:
        write_log(tmp_path / "log", model, Part(1, rows, right))
    current = "now.csv" if form == "csv" else "log"
    (said,) = told(capsys, "--name", model, "--current", current, code=1)
    assert f"column '{SHIFTED}'" in said
    assert "number" in said
    assert last_run(local, model).info.status == "FAILED"


def test_features_that_became_constant_are_drift(local: Place, model: str, tmp_path: Path) -> None:
    rows, right = flowers()
    for name in rows:
        rows[name] = 5.0
    found = look(model, write_log(tmp_path / "log", model, Part(1, rows, right))).findings
    assert set(rows.columns) <= set(found.where().split(", "))


def test_a_column_without_any_value_is_drift(local: Place, model: str, tmp_path: Path) -> None:
    rows, right = flowers()
    rows["petal width (cm)"] = np.nan
    rows["petal length (cm)"] = None
    found = look(model, write_log(tmp_path / "log", model, Part(1, rows, right))).findings
    assert set(rows.columns[2:]) <= set(found.where().split(", "))
    assert {f.missing for f in found.features if "petal" in f.name} == {1.0}


def test_decimals_are_numbers(local: Place, model: str, tmp_path: Path) -> None:
    rows, right = flowers()  # as a table of a database has them; a training takes them as well
    cents = {name: [Decimal(f"{value:.2f}") for value in rows[name]] for name in rows}
    log = write_log(tmp_path / "log", model, Part(1, pd.DataFrame(cents), right))
    found = look(model, log).findings
    assert (found.verdict(), found.where()) == ("none", "")


def test_infinite_values_are_numbers(local: Place, model: str, tmp_path: Path) -> None:
    rows, right = flowers()
    rows.loc[:99, SHIFTED] = np.inf
    found = look(model, write_log(tmp_path / "log", model, Part(1, rows, right))).findings
    assert found.where().split(", ")[0] == SHIFTED


def animals(count: int = 400, seed: int = 1) -> tuple[pd.DataFrame, list[str]]:
    """Return rows with text and booleans, some with holes, and what is right."""
    random = np.random.default_rng(seed)
    dog = random.random(count) < 0.5
    tame = np.where(random.random(count) < 0.1, None, random.random(count) < 0.6)
    colour = np.where(random.random(count) < 0.5, "brown", "grey").astype(object)
    rows = pd.DataFrame(
        {
            "weight": np.where(dog, 20.0, 4.0) + random.normal(0, 1.5, count),
            "colour": np.where(random.random(count) < 0.1, None, colour),
            "sold": random.random(count) < 0.5,
            "tame": tame,
            "age": random.integers(1, 15, count),
        }
    )
    return rows, ["dog" if each else "cat" for each in dog]


@pytest.fixture(scope="module")
def zoo(sqlite_place: Place, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model of text and booleans, whose second version takes another column."""
    name, folder = f"zoo-{os.getpid()}", tmp_path_factory.mktemp("zoo")
    rows, right = animals(600, seed=0)
    mlflow.set_tracking_uri(sqlite_place.uri)
    try:
        for number, table in enumerate((rows.drop(columns="age"), rows)):
            path = folder / f"{number}.csv"
            table.assign(kind=right).to_csv(path, index=False)
            stage = "production" if number == 0 else "next"
            train(TrainParams(data=str(path), target="kind", name=name, stage=stage, plots=False))
    finally:
        mlflow.set_tracking_uri(None)
    return name


def animals_log(folder: Path, name: str, rows: pd.DataFrame, right: list[str]) -> Path:
    return write_log(folder, name, Part(1, rows.drop(columns="age", errors="ignore"), right))


def test_text_and_booleans_with_holes_are_compared(local: Place, zoo: str, tmp_path: Path) -> None:
    rows, right = animals()
    result = look(zoo, animals_log(tmp_path / "log", zoo, rows, right))
    assert result.findings.verdict() == "none"
    unseen = {feature.name: feature.unseen for feature in result.findings.features}
    assert unseen == {"weight": None, "colour": 0, "sold": 0, "tame": 0}
    rows["colour"] = np.where(np.arange(400) % 3 == 0, "blue", rows["colour"])
    rows["tame"] = None
    result = look(zoo, animals_log(tmp_path / "other", zoo, rows, right))
    assert {"colour", "tame"} <= set(result.findings.where().split(", "))
    assert {f.name: f.unseen for f in result.findings.features}["colour"] == 134


@pytest.mark.parametrize("kind", ["plain", "scored"])
def test_booleans_in_a_csv_are_what_they_are_in_parquet(
    kind: str, local: Place, zoo: str, tmp_path: Path
) -> None:
    rows, right = animals()
    if kind == "scored":
        rows = rows.assign(prediction_name=right, prediction=0, model_version=1)
    rows.to_csv(tmp_path / "now.csv", index=False)
    found = look(zoo, tmp_path / "now.csv").findings
    assert (found.verdict(), found.where()) == ("none", "")


def test_a_new_version_that_takes_another_column_is_unknown_until_it_has_answered(
    local: Place, zoo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = animals_log(tmp_path / "log", zoo, *animals())
    result = look(zoo, log, stage="next")
    assert (result.version, result.findings.verdict(), result.findings.rows) == (2, "unknown", 0)
    assert [(found.version, found.verdict()) for found in result.others] == [(1, "none")]


@pytest.mark.parametrize("category", ["$_$", "汉字", "x" * 300])
def test_a_category_of_any_spelling_is_drawn(
    category: str, local: Place, zoo: str, tmp_path: Path
) -> None:
    rows, right = animals()
    rows["colour"] = category
    result = look(zoo, animals_log(tmp_path / "log", zoo, rows, right))
    assert "colour" in result.findings.where()
    assert run_of(local, result).info.status == "FINISHED"


# Clocks.


def test_a_clock_that_jumps_loses_no_rows(
    local: Place, model: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now = datetime.now(timezone.utc)
    rows, right = flowers(240)
    at = [now + timedelta(days=900 * (n % 3 - 1), minutes=-n) for n in range(240)]
    log = write_log(tmp_path / "log", model, Part(1, rows, right, at=at))
    assert look(model, log).findings.rows == 240
    with caplog.at_level(logging.WARNING):
        found = look(model, log, since=timedelta(days=1)).findings
    assert found.rows == 160  # those of now, and of a day that has not come
    assert "80 rows are from after now: a clock was wrong; they are taken in" in caplog.text


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


# Labels.


def test_rows_that_were_never_asked_and_are_too_few_are_unknown_with_labels_as_well(
    local: Place, model: str, tmp_path: Path, capsys: Any
) -> None:
    rows = flowers(50)[0].assign(request_id=[str(n) for n in range(50)])
    rows.to_csv(tmp_path / "now.csv", index=False)
    pd.DataFrame({"request_id": ["1"], "label": "setosa"}).to_csv("labels.csv", index=False)
    options = ("--name", model, "--current", "now.csv", "--labels", "labels.csv")
    assert told(capsys, *options)[0].startswith("unknown")


def test_labels_in_codes_instead_of_names_are_told_and_nothing_goes_back(
    local: Place, model: str, tmp_path: Path, capsys: Any
) -> None:
    rows, right = flowers()
    log = write_log(tmp_path / "log", model, Part(1, rows, right))
    codes = [NAMES.index(name) for name in right]
    table = pd.DataFrame({"request_id": [f"0-{n}" for n in range(240)], "species": codes})
    table.to_csv(tmp_path / "labels.csv", index=False)
    options = ("--name", model, "--current", log, "--labels", "labels.csv", "--rollback", "true")
    (said,) = told(capsys, *options, code=1)
    assert "labels: they say '0', '1', '2', and the version answers 'setosa'" in said
    assert registry.stage_holder(local.client, model, "production") == 1
    assert last_run(local, model).info.status == "FAILED"


# Processes.


def test_an_interrupted_look_is_killed_in_the_record(
    local: Place, model: str, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "write", interrupted)
    log = write_log(tmp_path / "log", model, Part(1, *flowers()))
    assert main(["monitor", "--name", model, "--current", str(log)]) == 130
    assert capsys.readouterr().err.strip() == "pipeline: error: interrupted"
    run = last_run(local, model)
    assert run.info.status == "KILLED"
    assert run.data.tags["error"] == "interrupted"


def test_the_run_of_a_look_that_was_killed_is_ended_by_the_next(
    local: Place, model: str, tmp_path: Path
) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    here = {"host": socket.gethostname()}
    killed, alive, elsewhere = (
        runs.start(local.client, f"{model}-monitoring", tags)
        for tags in (
            {**here, "process": str(ended.pid)},
            {**here, "process": str(os.getpid())},
            {"host": "elsewhere", "process": str(ended.pid)},
        )
    )
    (tmp_path / "log").mkdir()
    look(model, tmp_path / "log")
    status = [local.client.get_run(run).info.status for run in (killed, alive, elsewhere)]
    assert status == ["KILLED", "RUNNING", "RUNNING"]


def test_a_model_or_stage_that_is_not_there_is_told_in_a_line(
    local: Place, model: str, tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "log").mkdir()
    (said,) = told(capsys, "--name", "nobody", "--current", "log", code=1)
    assert "nobody" in said
    (said,) = told(capsys, "--name", model, "--stage", "shadow", "--current", "log", code=1)
    assert "shadow" in said


Start = Callable[..., "subprocess.Popen[bytes]"]
MONITOR = (sys.executable, "-m", "pipeline", "monitor")


@pytest.mark.slow
def test_a_monitor_that_is_interrupted_while_it_trains_leaves_the_stage_and_says_so(
    local: Place, model: str, start: Start, tmp_path: Path
) -> None:
    log = write_log(tmp_path / "log", model, Part(1, *flowers(240, shift=2)))
    table = grown(tmp_path, count=200_000)
    options = ("--name", model, "--current", str(log), "--retrain", str(table))
    process = start(*MONITOR, *options, "--promote", "true")
    eventually(lambda: has_runs(local, model, 2), 60)  # the training has begun
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert last_run(local, model).info.status == "KILLED"
    assert registry.stage_holder(local.client, model, "production") == 1


def has_runs(place: Place, name: str, count: int) -> bool:
    """Tell whether there is a run of a training of this model, beside that of the look."""
    found = [place.client.get_experiment_by_name(each) for each in (name, f"{name}-monitoring")]
    ids = [experiment.experiment_id for experiment in found if experiment is not None]
    return len(ids) == count and len(place.client.search_runs(ids)) >= count


@pytest.mark.slow
def test_two_monitors_at_once_start_one_retraining(
    local: Place, model: str, start: Start, tmp_path: Path
) -> None:
    log = write_log(tmp_path / "log", model, Part(1, *flowers(240, shift=2)))
    options = ("--name", model, "--current", str(log), "--retrain", str(grown(tmp_path)))
    both = [start(*MONITOR, *options, "--promote", "true") for _ in range(2)]
    assert [process.wait(timeout=100) for process in both] == [4, 4]
    versions = registry.list_versions(local.client, model)
    assert [version.version for version in versions] == [3, 2, 1]
    said = "".join(path.read_text() for path in sorted(tmp_path.glob("process-*.log")))
    assert said.count("retrain   done") == 1
    assert said.count("retrain   not started") == 1
    assert local.holder(model) == 3


@pytest.mark.slow
def test_two_monitors_at_once_go_back_once(
    local: Place,
    passing: None,  # noqa: F811
    start: Start,
    tmp_path: Path,
) -> None:
    name = held(local, GOOD, EQUAL, GOOD)
    rows, right = flowers()
    log = write_log(tmp_path / "log", name, Part(3, rows, right))
    wrong = [NAMES[(NAMES.index(each) + 1) % 3] for each in right]
    table = pd.DataFrame({"request_id": [f"0-{n}" for n in range(240)], "label": wrong})
    table.to_csv(tmp_path / "labels.csv", index=False)
    options = ("--name", name, "--current", str(log), "--labels", "labels.csv")
    both = [start(*MONITOR, *options, "--rollback", "true") for _ in range(2)]
    codes = [process.wait(timeout=100) for process in both]
    assert 4 in codes
    assert local.holder(name) == 2
    done = [act for act in history.acts(local.client, name) if act.action == "rollback"]
    assert [act.outcome for act in done].count("done") == 1


@pytest.mark.slow
def test_a_killed_monitor_is_ended_by_the_next(
    local: Place, model: str, start: Start, tmp_path: Path
) -> None:
    log = write_log(tmp_path / "log", model, Part(1, *flowers(240, shift=2)))
    table = grown(tmp_path, count=200_000)
    process = start(*MONITOR, "--name", model, "--current", log, "--retrain", table)
    eventually(lambda: has_runs(local, model, 2), 60)
    process.kill()
    process.wait(timeout=10)
    killed = last_run(local, model)
    assert killed.info.status == "RUNNING"
    time.sleep(0.1)
    result: MonitorResult = look(model, log, retrain=str(table))
    assert local.client.get_run(killed.info.run_id).info.status == "KILLED"
    assert acts(result) == [("retrain", "not started")]  # it cools, as one that failed does


@pytest.mark.slow
def test_the_project_runs_the_monitor_and_ends_as_it_did(local: Place, tmp_path: Path) -> None:
    name = local.model(GOOD)
    registry.move_alias(local.client, name, "production", 1)
    for shift, code in ((0, 0), (2, 1)):  # MLflow has one exit code for all that is not 0
        log = write_log(tmp_path / f"log-{shift}", name, Part(1, *flowers(240, shift=shift)))
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
