"""A look at what is served: where the drift is, how right the answers are, and what may follow."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import click
import httpx
import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import ROOT
from mlflow.entities import Run
from places import EQUAL, GOOD, Place
from servers import eventually, metric
from sklearn.datasets import load_iris
from test_registry_cli import run as registry_tools

from pipeline.cli import cli, main
from pipeline.errors import DataError, InvalidParameter
from pipeline.monitor import MonitorResult, monitor
from pipeline.monitoring import findings, follow_up, labels, pictures, reference, report
from pipeline.monitoring.follow_up import FollowUp
from pipeline.monitoring.record import CAUSE_TAG, Record
from pipeline.monitoring.window import Window
from pipeline.parameters import as_text
from pipeline.params import MonitorParams
from registry_tools import artifacts, history, promotion, registry, runs
from registry_tools.drift_tags import DRIFT_AT_TAG, DRIFT_RUN_TAG, DRIFT_TAG
from registry_tools.gates import GateResult, Verdict
from registry_tools.judging import GateOptions
from registry_tools.refs import ModelRef
from registry_tools.rows import hash_rows, unit_interval
from registry_tools.serving.answered import Answered
from registry_tools.serving.loading import load
from registry_tools.serving.prediction_log import PredictionLog
from registry_tools.serving.settings import Settings
from registry_tools.serving.source import Source

IRIS = load_iris(as_frame=True)
NAMES = [str(name) for name in IRIS.target_names]
SHIFTED = "sepal length (cm)"


def flowers(count: int = 240, seed: int = 0, shift: float = 0) -> tuple[pd.DataFrame, list[str]]:
    """Return rows as those of the training, one column shifted, and what is right."""
    chosen = np.random.default_rng(seed).integers(0, 150, count)
    rows = IRIS.data.iloc[chosen].reset_index(drop=True)
    rows[SHIFTED] += shift
    return rows, [NAMES[code] for code in IRIS.target[chosen]]


@dataclass(frozen=True)
class Part:
    """Rows that one version answered, as they stand in a file of the prediction log."""

    version: int
    rows: pd.DataFrame
    answers: Sequence[Any]  # names of classes; with `named` false, whatever was answered
    requests: Sequence[str] | None = None
    places: Sequence[int] | None = None  # in the request
    at: datetime | Sequence[datetime] | None = None
    named: bool = True


def write_log(folder: Path, name: str, *parts: Part) -> Path:
    """Write files as the server does; the first test below compares them with its own."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    before = len(list((folder / name).glob("*.parquet")))
    for number, part in enumerate(parts, before):
        count = len(part.rows)
        at = part.at if part.at is not None else datetime.now(timezone.utc)
        columns: dict[str, Any] = {
            str(column): pa.array(part.rows[column], from_pandas=True) for column in part.rows
        }
        codes = [NAMES.index(said) if said in NAMES else 0 for said in part.answers]
        columns |= {
            "_request_id": pa.array(part.requests or [f"{number}-{row}" for row in range(count)]),
            "_row": pa.array(part.places or [0] * count, pa.int32()),
            "_at": pa.array([at] * count if isinstance(at, datetime) else at)
            .cast(pa.timestamp("us", "UTC")),
            "_model": pa.array([name] * count).dictionary_encode(),
            "_version": pa.array([part.version] * count, pa.int32()),
            "_prediction": pa.array(codes if part.named else list(part.answers)),
        }  # fmt: skip
        if part.named:
            columns["_prediction_name"] = pa.array(list(part.answers))
        file = f"20260101T{number:06}-version-{part.version}-1-{number}.parquet"
        pq.write_table(pa.table(columns), folder / name / file)
    return folder


def look(name: str, current: Path | str, **options: Any) -> MonitorResult:
    return monitor(MonitorParams(name=name, current=str(current), **options))


def told(capsys: Any, *argv: str | Path, code: int = 0) -> list[str]:
    """Run the command and return its lines; of an error, the one that stands on stderr."""
    assert main(["monitor", *map(str, argv)]) == code, capsys.readouterr()
    out, err = capsys.readouterr()
    if code in {0, 4}:
        return out.splitlines()
    assert err.startswith("pipeline: error: ")
    assert err.count("\n") == 1, err
    assert "unexpected" not in err
    return [err.strip()]


def acts(result: MonitorResult) -> list[tuple[str, str]]:
    return [(act.act, act.outcome) for act in result.acts]


def run_of(place: Place, result: MonitorResult) -> Run:
    return place.client.get_run(result.run_id)


@pytest.fixture(autouse=True)
def few_panels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw the feature that moved most alone: the others take as long as all the rest of a look."""
    monkeypatch.setattr(pictures, "MOST", 1)


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gates are tested elsewhere; where a test is not about them they only take time."""
    verdict = Verdict((GateResult("none", True, "not judged here"),))
    for judge in ("judge", "judge_return"):
        monkeypatch.setattr(promotion, judge, lambda *_: verdict)


def held(place: Place, *versions: int) -> str:
    """Return a model each of whose versions was in production, the last one is."""
    name = place.model(*versions)
    for version in range(1, len(versions) + 1):
        ref = ModelRef(name, version=version)
        promotion.promote(place.client, ref, "production", GateOptions(), reason="test")
    return name


# What the command says, and what it leaves behind.


def test_rows_like_those_of_the_training_are_no_drift(
    local: Place, model: str, tmp_path: Path, capsys: Any
) -> None:
    flowers()[0].to_csv(tmp_path / "now.csv", index=False)
    first, last = told(capsys, "--name", model, "--current", "now.csv")
    assert first.startswith(f"none      {model} version 1 in production: 240 rows: no drift")
    assert last.endswith(f" in {model}-monitoring")
    tags = local.version(model, 1).tags
    assert tags[DRIFT_TAG] == "none"


def test_a_shifted_column_is_drift_and_the_line_names_it(
    local: Place, model: str, tmp_path: Path, capsys: Any
) -> None:
    flowers(shift=1)[0].to_parquet(tmp_path / "now.parquet", index=False)
    first, _ = told(capsys, "--name", model, "--current", "now.parquet", code=4)
    assert first.startswith(f"DRIFT     {model} version 1 in production: 240 rows: drift in ")
    assert f"drift in {SHIFTED}" in first
    assert "petal" not in first


@dataclass(frozen=True)
class Looked:
    """A window whose second half is shifted, and what was left behind by a look at it."""

    name: str
    result: MonitorResult
    run: Run
    files: Path
    tags: dict[str, str]
    place: Place


@pytest.fixture(scope="module")
def looked(sqlite_place: Place, tmp_path_factory: pytest.TempPathFactory) -> Looked:
    folder = tmp_path_factory.mktemp("looked")
    rows, right = flowers(500)
    rows.loc[250:, SHIFTED] += 2
    mlflow.set_tracking_uri(sqlite_place.uri)
    try:
        name = sqlite_place.model(GOOD)
        registry.move_alias(sqlite_place.client, name, "production", 1)
        write_log(folder, name, Part(1, rows, right))
        result = look(name, folder)
    finally:
        mlflow.set_tracking_uri(None)
    run = run_of(sqlite_place, result)
    tags = sqlite_place.version(name, 1).tags
    files = Path(run.info.artifact_uri.removeprefix("file://"))
    return Looked(name, result, run, files, tags, sqlite_place)


def test_psi_is_logged_for_each_feature_over_the_parts_of_the_window(looked: Looked) -> None:
    suffixes = ["sepal length _cm_", "sepal width _cm_", "petal length _cm_", "petal width _cm_"]
    for suffix in suffixes:
        steps = looked.place.client.get_metric_history(looked.run.info.run_id, f"psi.{suffix}")
        by_step = [m.value for m in sorted(steps, key=lambda m: m.step)]
        assert len(by_step) == 10
        early, late = np.mean(by_step[:5]), np.mean(by_step[5:])
        assert (late > early + 1) == (suffix == suffixes[0])
    assert looked.run.data.metrics["missing.sepal width _cm_"] == 0
    assert looked.run.data.metrics["p_value.sepal length _cm_"] < 0.01
    assert looked.run.data.metrics["rows"] == 500
    assert looked.run.data.metrics["drift"] == 1


def test_the_run_says_what_was_looked_at_and_found(looked: Looked) -> None:
    tags, info = looked.run.data.tags, looked.run.info
    assert info.status == "FINISHED"
    experiment = looked.place.client.get_experiment(info.experiment_id)
    assert experiment.name == looked.result.experiment == f"{looked.name}-monitoring"
    assert (tags["model"], tags["stage"], tags["version"]) == (looked.name, "production", "1")
    assert tags["verdict"] == "drift"
    assert tags["where"].startswith(SHIFTED)
    assert SHIFTED in tags["mlflow.note.content"]
    assert tags["alpha"] == "0.01"


def test_the_version_says_what_was_found_last_when_and_by_which_run(looked: Looked) -> None:
    assert looked.tags[DRIFT_TAG].startswith(f"drift: {SHIFTED}")
    assert looked.tags[DRIFT_RUN_TAG] == looked.run.info.run_id
    at = datetime.fromisoformat(looked.tags[DRIFT_AT_TAG].replace("Z", "+00:00"))
    assert abs((datetime.now(timezone.utc) - at).total_seconds()) < 300


def test_the_report_is_one_page_that_loads_nothing(looked: Looked) -> None:
    page = (looked.files / "report.html").read_text()
    assert not re.findall(r"""(?:src|href|url|@import)\s*[=(]?\s*["']?\s*https?:""", page)
    assert not re.findall(r"https?://", page)
    assert "<script" not in page.lower()
    sources = re.findall(r'src="([^"]{0,30})', page)
    assert len(sources) == 3
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    for said in (looked.name, looked.run.info.run_id, SHIFTED, "petal width (cm)", "PSI", "DRIFT"):
        assert said.lower() in page.lower()


def test_the_pictures_and_the_findings_are_logged_beside_the_report(looked: Looked) -> None:
    drawn = sorted(path.name for path in (looked.files / "plots" / "version-1").iterdir())
    assert drawn == ["features.png", "over_time.png", "predictions.png"]
    content = json.loads((looked.files / "findings.json").read_text())
    assert (content["name"], content["stage"], content["version"]) == (
        looked.name, "production", 1,
    )  # fmt: skip
    assert content["run_id"] == looked.run.info.run_id
    (version,) = content["versions"]
    assert version["verdict"] == "drift"
    assert version["where"][0] == SHIFTED
    assert {feature["name"] for feature in version["features"]} == set(IRIS.data.columns)
    assert all(test["adjusted"] >= test["p_value"] for test in version["tests"])
    assert content["acts"] == content["notes"] == []


def test_a_report_shows_names_as_they_are_written(tmp_path: Path) -> None:
    evil = "<script>alert('x')</script>"
    own, window = small({evil: np.arange(40.0)}), answered(["cat"] * 40, {evil: np.arange(40.0)})
    found = findings.find(1, own, window, None, 20, 0.01)
    head = {
        "name": evil, "stage": "production", "version": 1, "current": evil, "run_id": "1",
        "alpha": 0.01, "notes": [evil],
    }  # fmt: skip
    report.write(tmp_path, head, [(found, own, window)], [FollowUp("retrain", "failed", evil)])
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page


# Where the rows come from.


def served(local: Place, name: str, folder: Path) -> Any:
    folder.mkdir()
    with artifacts.model_files(local.client, name, 1) as files:
        files.rename(folder / "model")
    return load(Source(str(folder), name, 1, None, None, None), Settings(ref=f"{name}/1").policy)


def test_what_the_server_logs_is_looked_at(local: Place, model: str, tmp_path: Path) -> None:
    version = served(local, model, tmp_path / "source")
    log = PredictionLog(tmp_path / "log", 1.0, 60, lambda *_: None)
    rows, right = flowers(220)
    for number, row in enumerate(rows.to_numpy()):
        answers = [NAMES.index(right[number])]
        log.watch(Answered(version, "predict", [row[None, :]], [answers], [f"r{number}"]))
    log.close()
    write_log(tmp_path / "own", model, Part(1, rows, right))
    schemas = [
        {field.name: field.type for field in pq.read_schema(next((folder / model).iterdir()))}
        for folder in (tmp_path / "log", tmp_path / "own")
    ]
    del schemas[0]["_probabilities"]
    assert schemas[0] == schemas[1]
    for current in (tmp_path / "log", tmp_path / "log" / model):
        found = look(model, current).findings
        assert (found.verdict(), found.rows) == ("none", 220)
        assert found.predictions == {name: right.count(name) for name in sorted(set(right))}


@pytest.mark.slow
@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_what_was_scored_is_looked_at(
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
    found = look(model, output).findings
    assert (found.version, found.verdict(), found.rows) == (1, "none", 300)
    assert found.predictions == summary["counts"]


def test_a_table_that_nobody_answered_is_answered_by_the_version_in_the_stage(
    local: Place, model: str, tmp_path: Path
) -> None:
    rows, right = flowers(240)
    rows.iloc[:60, 2] = np.nan  # the model takes no holes
    rows.to_parquet(tmp_path / "now.parquet", index=False)
    found = look(model, tmp_path / "now.parquet").findings
    assert sum(found.predictions.values()) == 180
    agreed = {name: right[60:].count(name) for name in NAMES}
    assert all(abs(found.predictions[name] - agreed[name]) < 15 for name in NAMES)
    assert found.where().split(", ")[0] == "petal length (cm)"
    assert next(f for f in found.features if f.name == "petal length (cm)").missing == 0.25


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_table_with_the_columns_of_a_scored_one_is_split_by_version(
    form: str, local: Place, model: str, tmp_path: Path
) -> None:
    rows, right = flowers(300)
    answers = {"prediction": [NAMES.index(name) for name in right], "prediction_name": right}
    table = rows.assign(**answers, model_version=[1] * 210 + [2] * 90)
    path = tmp_path / f"scored.{form}"
    table.to_csv(path, index=False) if form == "csv" else table.to_parquet(path, index=False)
    result = look(model, path)
    assert (result.findings.rows, result.findings.verdict()) == (210, "none")
    assert sum(result.findings.predictions.values()) == 210
    assert [(f.version, f.rows, f.verdict()) for f in result.others] == [(2, 90, "unknown")]


def test_since_leaves_out_what_was_answered_before(
    local: Place, model: str, tmp_path: Path
) -> None:
    now = datetime.now(timezone.utc)
    log = write_log(
        tmp_path / "log",
        model,
        Part(1, *flowers(400, shift=3), at=now - timedelta(days=3)),
        Part(1, *flowers(220), at=now - timedelta(hours=1)),
    )
    found = look(model, log, since=timedelta(days=1)).findings
    assert (found.rows, found.verdict()) == (220, "none")
    found = look(model, log, since=timedelta(minutes=1)).findings
    assert (found.rows, found.verdict()) == (0, "unknown")


def test_since_needs_rows_that_say_when_they_were_answered(
    local: Place, model: str, tmp_path: Path, capsys: Any
) -> None:
    flowers()[0].to_csv(tmp_path / "now.csv", index=False)
    (said,) = told(capsys, "--name", model, "--current", "now.csv", "--since", "1d", code=1)
    assert "since: the rows do not say when they were answered (no column '_at')" in said


def test_too_few_rows_are_told_with_how_many_are_needed(
    local: Place, model: str, tmp_path: Path, capsys: Any
) -> None:
    flowers(87, shift=5)[0].to_csv(tmp_path / "now.csv", index=False)
    first, _ = told(capsys, "--name", model, "--current", "now.csv")
    assert re.search(r"^unknown .*: 87 rows, 200 needed for a shift of \d\.\d sd", first)
    assert local.version(model, 1).tags[DRIFT_TAG] == "unknown"
    first, _ = told(capsys, "--name", model, "--current", "now.csv", "--min-rows", "80", code=4)
    assert first.startswith("DRIFT")


def words(counts: dict[str, int]) -> pd.DataFrame:
    return pd.DataFrame({"word": [name for name, count in counts.items() for _ in range(count)]})


def found_in(before: pd.DataFrame, now: pd.DataFrame) -> findings.Feature:
    """Return what is found of the one feature of two tables without a store."""
    said = np.array(["cat"] * 20, dtype=object)
    own = reference.make(before, "kind", said, said)
    window = Window(pa.Table.from_pandas(now, preserve_index=False), None, None)
    return findings.find(1, own, window, None, 20, 0.01).features[0]


def test_rows_of_categories_that_the_training_did_not_have_are_counted() -> None:
    before = words({"red": 60, "green": 40})
    feature = found_in(before, words({"red": 60, "blue": 7, "": 3, "green": 30}))
    assert (feature.unseen, feature.is_number) == (10, False)
    assert feature.psi > 0
    assert len(feature.psi_over_time) == 2


def test_what_the_profile_does_not_name_is_one_category() -> None:
    many = {f"word {n}": 1 for n in range(3000)}
    feature = found_in(words(many), words({f"another {n}": 1 for n in range(300)}))
    assert feature.unseen is None  # it cannot be known
    assert found_in(words(many), words(many)).psi == pytest.approx(0, abs=0.01)


# What was right.


def small(columns: dict[str, Any] | None = None) -> reference.Reference:
    """Return a reference of cats and dogs, nine of ten of which were told rightly."""
    right = np.array(["cat", "dog"] * 5, dtype=object)
    said = right.copy()
    said[0] = "dog"
    return reference.make(pd.DataFrame(columns or {"x": np.arange(40.0)}), "kind", said, right)


def answered(
    said: Sequence[str],
    columns: dict[str, Any] | None = None,
    requests: Sequence[str] | None = None,
    places: Sequence[int] | None = None,
) -> Window:
    count = len(said)
    keys = {
        "request": pa.array(requests or [f"r{n}" for n in range(count)]),
        "row": pa.array(places or [0] * count, pa.int64()),
    }
    table = pa.table(columns or {"x": np.zeros(count)})
    return Window(table, pa.chunked_array([pa.array(said, pa.string())]), pa.table(keys))


def joined(tmp_path: Path, table: dict[str, Any], window: Window) -> labels.Live:
    path = tmp_path / "labels.parquet"
    pd.DataFrame(table).to_parquet(path, index=False)
    return labels.join(labels.read(path, "kind"), window, small())


SAID = ["cat", "dog", "cat", "dog"]
IDS = ["r0", "r1", "r2", "r3"]


def test_labels_are_joined_by_the_id_of_the_request_in_any_order(tmp_path: Path) -> None:
    live = joined(
        tmp_path, {"request_id": IDS[::-1], "label": ["cat", "cat", "dog", "cat"]}, answered(SAID)
    )
    assert live == labels.Live(4, 3, ())


def test_labels_of_half_the_rows_count_for_those(tmp_path: Path) -> None:
    table = {"request_id": ["r1", "r3", "r2"], "kind": ["dog", "cat", None]}
    live = joined(tmp_path, table, answered(SAID))
    assert live == labels.Live(2, 1, ("2 of 4 rows have no label",))


def test_labels_that_were_given_twice_count_once(tmp_path: Path) -> None:
    table = {"_request_id": [*IDS, "r0", "r0"], "label": ["cat", "dog", "cat", "dog", "cat", "cat"]}
    live = joined(tmp_path, table, answered(SAID))
    assert live == labels.Live(4, 4, ("2 labels were given twice, and count once",))


def test_labels_that_contradict_each_other_are_left_out_and_told(tmp_path: Path) -> None:
    table = {"request_id": [*IDS, "r0"], "label": ["cat", "dog", "cat", "dog", "dog"]}
    live = joined(tmp_path, table, answered(SAID))
    assert (live.rows, live.right) == (3, 3)
    assert "1 rows have labels that contradict each other, and are left out" in live.notes


def test_a_row_whose_labels_contradict_is_not_told_as_one_without(tmp_path: Path) -> None:
    table = {"request_id": [*IDS, "r0"], "label": ["cat", "dog", "cat", "dog", "dog"]}
    assert not [n for n in joined(tmp_path, table, answered(SAID)).notes if "no label" in n]


def test_labels_that_are_written_otherwise_than_the_answers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="they say '0', '1', and the version answers 'cat', 'dog'"):
        joined(tmp_path, {"request_id": IDS, "label": [0, 1, 0, 1]}, answered(SAID))


def test_a_request_of_several_rows_needs_to_be_told_which(tmp_path: Path) -> None:
    window = answered(SAID, requests=["a", "a", "b", "b"], places=[0, 1, 0, 1])
    with pytest.raises(DataError, match="request 'a' has several rows: a column 'row'"):
        joined(tmp_path, {"request_id": ["a", "b"], "label": ["cat", "cat"]}, window)
    table = {"request_id": ["a", "b", "a"], "row": [1, 0, 0], "label": ["dog", "dog", "cat"]}
    assert joined(tmp_path, table, window) == labels.Live(3, 2, ("1 of 4 rows have no label",))


def test_labels_of_other_requests_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="request"):
        joined(tmp_path, {"request_id": ["x", "y"], "label": ["cat", "dog"]}, answered(SAID))


def test_labels_without_a_column_to_join_by_are_refused(tmp_path: Path) -> None:
    for table, said in (
        ({"id": IDS, "label": SAID}, "there is no column 'request_id'; it has 'id', 'label'"),
        ({"request_id": IDS, "class": SAID}, "there is no column 'label' or 'kind'"),
    ):
        with pytest.raises(DataError, match=said):
            joined(tmp_path, table, answered(SAID))


def test_rows_without_the_id_of_a_request_cannot_be_labelled(
    local: Place, model: str, tmp_path: Path, capsys: Any
) -> None:
    flowers()[0].to_csv(tmp_path / "now.csv", index=False)
    pd.DataFrame({"request_id": IDS, "label": "setosa"}).to_csv(tmp_path / "l.csv", index=False)
    options = ("--name", model, "--current", "now.csv", "--labels", "l.csv")
    (said,) = told(capsys, *options, code=1)
    assert "the rows have no column 'request_id'" in said


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_numbers_as_labels_may_have_holes(form: str, tmp_path: Path) -> None:
    right = np.array(["0", "1"] * 5, dtype=object)
    own = reference.make(pd.DataFrame({"x": np.arange(40.0)}), "kind", right, right)
    table = pd.DataFrame({"request_id": IDS, "kind": [0, 1, np.nan, 0]})
    path = tmp_path / f"labels.{form}"
    table.to_csv(path, index=False) if form == "csv" else table.to_parquet(path, index=False)
    live = labels.join(labels.read(path, "kind"), answered(["0", "1", "0", "1"]), own)
    assert (live.rows, live.right) == (3, 2)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_true_and_false_may_be_labels(form: str, tmp_path: Path) -> None:
    right = np.array(["False", "True"] * 5, dtype=object)  # as a training names them
    own = reference.make(pd.DataFrame({"x": np.arange(40.0)}), "kind", right, right)
    table = pd.DataFrame({"request_id": IDS, "kind": [False, True, True, True]})
    path = tmp_path / f"labels.{form}"
    table.to_csv(path, index=False) if form == "csv" else table.to_parquet(path, index=False)
    window = answered(["False", "True", "False", "True"])
    live = labels.join(labels.read(path, "kind"), window, own)
    assert (live.rows, live.right) == (4, 3)


def labelled(folder: Path, right: Sequence[str], wrong: int) -> Path:
    """Write labels for a log of one part; so many of the answers are wrong."""
    other = {name: NAMES[(NAMES.index(name) + 1) % 3] for name in NAMES}
    said = [other[name] if n < wrong else name for n, name in enumerate(right)]
    path = folder / "labels.csv"
    ids = [f"0-{n}" for n in range(len(right))]
    pd.DataFrame({"request_id": ids, "label": said}).to_csv(path, index=False)
    return path


def test_live_accuracy_is_told_with_its_interval_beside_that_of_the_promotion(
    local: Place, model: str, tmp_path: Path, capsys: Any
) -> None:
    rows, right = flowers(240)
    log = write_log(tmp_path / "log", model, Part(1, rows, right))
    path = labelled(tmp_path, right, wrong=12)
    lines = told(capsys, "--name", model, "--current", log, "--labels", path)
    # Wilson's interval of 228 of 240.
    assert lines[1] == (
        "accuracy  0.9500 [0.9147, 0.9712] on 240 labelled rows, 0.9667 on 30 at promotion"
    )
    run = local.client.get_run(lines[-1].split()[1])
    assert run.data.metrics["live_accuracy"] == 0.95
    assert run.data.metrics["live_accuracy.low"] == pytest.approx(0.9147, abs=1e-4)
    assert run.data.metrics["promoted_accuracy"] == pytest.approx(29 / 30)
    page = Path(run.info.artifact_uri.removeprefix("file://"), "report.html").read_text()
    assert "0.9147 to 0.9712" in page


def test_an_accuracy_that_has_fallen_is_drift(local: Place, model: str, tmp_path: Path) -> None:
    rows, right = flowers(240)
    log = write_log(tmp_path / "log", model, Part(1, rows, right))
    result = look(model, log, labels=str(labelled(tmp_path, right, wrong=120)))
    assert result.findings.where() == "accuracy"
    assert result.findings.has_fallen
    assert result.acts == ()


# A way back.


def test_a_fallen_accuracy_goes_back_and_the_history_names_the_run(
    local: Place, passing: None, tmp_path: Path, capsys: Any
) -> None:
    name = held(local, GOOD, EQUAL)
    rows, right = flowers(240)
    log = write_log(tmp_path / "log", name, Part(2, rows, right))
    path = labelled(tmp_path, right, wrong=120)
    lines = told(
        capsys, "--name", name, "--current", log, "--labels", path, "--rollback", "true", code=4
    )
    assert "rollback  done: production: version 2 → 1" in lines
    assert local.holder(name) == 1
    newest = history.acts(local.client, name, limit=1)[0]
    run_id = lines[-1].split()[1]
    assert (newest.action, newest.outcome, newest.version) == ("rollback", "done", 1)
    assert newest.reason == f"live accuracy fell, monitoring run {run_id}"
    assert "version 2 → 1" in local.client.get_run(run_id).data.tags["rollback"]


def test_an_accuracy_that_holds_goes_nowhere(local: Place, model: str, tmp_path: Path) -> None:
    rows, right = flowers(240, shift=2)
    log = write_log(tmp_path / "log", model, Part(1, rows, right))
    result = look(model, log, labels=str(labelled(tmp_path, right, wrong=5)), rollback=True)
    assert result.findings.has_drift
    assert result.acts == ()
    assert history.acts(local.client, model) == []


def test_where_there_is_nothing_to_go_back_to_the_run_says_so(
    local: Place, model: str, tmp_path: Path
) -> None:
    rows, right = flowers(240)
    log = write_log(tmp_path / "log", model, Part(1, rows, right))
    path = labelled(tmp_path, right, wrong=120)
    result = look(model, log, labels=str(path), rollback=True)
    assert acts(result) == [("rollback", "failed")]
    run = run_of(local, result)
    assert run.info.status == "FINISHED"
    assert "has no version that stage production could go back to" in run.data.tags["rollback"]
    assert registry.stage_holder(local.client, model, "production") == 1


def test_two_at_once_go_back_only_once(local: Place, passing: None, tmp_path: Path) -> None:
    name = held(local, GOOD, EQUAL, GOOD)
    params = MonitorParams(name=name, current="log", labels="labels.csv", rollback=True)
    with ThreadPoolExecutor(2) as threads:
        asked = [
            threads.submit(follow_up.roll_back, local.client, params, 3, f"run-{n}")
            for n in range(2)
        ]
    outcomes = sorted(each.result()[0].outcome for each in asked)
    assert outcomes == ["done", "failed"]
    assert local.holder(name) == 2


@pytest.mark.slow
def test_a_candidate_stands_against_the_version_that_was_gone_back_to(
    local: Place, passing: None, tmp_path: Path
) -> None:
    name = held(local, GOOD, EQUAL)
    rows, right = flowers(240, shift=2)
    log = write_log(tmp_path / "log", name, Part(2, rows, right))
    path, table = labelled(tmp_path, right, wrong=120), grown(tmp_path)
    result = look(name, log, labels=str(path), rollback=True, retrain=str(table), promote=True)
    assert acts(result) == [("rollback", "done"), ("retrain", "done"), ("promote", "done")]
    assert result.acts[2].said == "production: version 1 → 3"
    assert local.holder(name) == 3


# A candidate.


def grown(folder: Path, shift: float = 2, count: int = 600) -> Path:
    """Write a table to train on: what there was, and the rows of now with their labels."""
    now, right = flowers(count, seed=3, shift=shift)
    random = np.random.default_rng(4)
    now += random.normal(0, 0.05, now.shape)
    before = IRIS.data.assign(species=[NAMES[code] for code in IRIS.target])
    path = folder / "grown.csv"
    pd.concat([before, now.assign(species=right)]).to_csv(path, index=False)
    return path


def poisoned(folder: Path, count: int = 4000) -> Path:
    """Write a table that teaches the contrary of what it holds out to judge by."""
    rows, right = flowers(count, seed=5)
    rows = (rows + np.random.default_rng(6).normal(0, 0.05, rows.shape)).round(3)
    right_table = rows.assign(species=right)
    wrong = {name: NAMES[(NAMES.index(name) + 1) % 3] for name in NAMES}
    wrong_table = rows.assign(species=[wrong[name] for name in right])
    sides = [unit_interval(hash_rows(each), 42) < 0.2 for each in (right_table, wrong_table)]
    path = folder / "poisoned.parquet"
    kept = [right_table[sides[0]], wrong_table[~sides[0] & ~sides[1]].head(900)]
    pd.concat(kept, ignore_index=True).to_parquet(path, index=False)
    return path


@pytest.fixture
def shifted_log(model: str, tmp_path: Path) -> Path:
    return write_log(tmp_path / "log", model, Part(1, *flowers(240, shift=2)))


def test_a_candidate_is_trained_into_staging_and_judged_without_a_promotion(
    local: Place, model: str, passing: None, shifted_log: Path, tmp_path: Path, capsys: Any
) -> None:
    table = grown(tmp_path)
    lines = told(capsys, "--name", model, "--current", shifted_log, "--retrain", table, code=4)
    assert registry.stage_holder(local.client, model, "production") == 1
    assert registry.stage_holder(local.client, model, "staging") == 3
    said = {line.split()[0]: line for line in lines}
    assert re.search(r"done: version 3 in staging, accuracy [01]\.\d{4} on", said["retrain"])
    assert "not started: version 3: the gates let it through; promote=true would" in said["promote"]
    candidate = local.version(model, 3)
    assert candidate.tags[CAUSE_TAG] == lines[-1].split()[1]
    assert (candidate.params["split"], candidate.params["data"]) == ("hash", str(table))
    assert candidate.params["target"] == "species"
    assert history.acts(local.client, model) == []


def test_a_candidate_is_promoted_and_the_history_names_the_run(
    local: Place, model: str, passing: None, shifted_log: Path, tmp_path: Path
) -> None:
    result = look(model, shifted_log, retrain=str(grown(tmp_path)), promote=True)
    assert acts(result) == [("retrain", "done"), ("promote", "done")]
    assert local.holder(model) == 3
    newest = history.acts(local.client, model, limit=1)[0]
    assert (newest.action, newest.outcome, newest.version) == ("promote", "done", 3)
    assert newest.reason.startswith(f"drift in {SHIFTED}")
    assert newest.reason.endswith(f", monitoring run {result.run_id}")
    tags = run_of(local, result).data.tags
    assert tags["promote"] == "done: production: version 1 → 3"


def test_a_worse_candidate_stays_out_and_the_run_says_why(
    local: Place, model: str, shifted_log: Path, tmp_path: Path, capsys: Any
) -> None:
    table = poisoned(tmp_path)
    options = ("--name", model, "--current", shifted_log, "--retrain", table, "--promote", "true")
    lines = told(capsys, *options, code=4)
    assert registry.stage_holder(local.client, model, "production") == 1
    assert registry.stage_holder(local.client, model, "staging") == 3
    said = next(line for line in lines if line.startswith("promote"))
    assert "refused:" in said
    assert "champion:" in said
    run = local.client.get_run(lines[-1].split()[1])
    assert run.info.status == "FINISHED"
    assert run.data.tags["promote"].startswith("refused:")
    assert "champion:" in run.data.tags["mlflow.note.content"]
    newest = history.acts(local.client, model, limit=1)[0]
    assert (newest.outcome, run.info.run_id in newest.reason) == ("refused", True)


@pytest.mark.slow
def test_a_candidate_that_the_gates_let_through_is_promoted(
    local: Place, model: str, shifted_log: Path, tmp_path: Path
) -> None:
    result = look(model, shifted_log, retrain=str(grown(tmp_path)), promote=True)
    assert acts(result) == [("retrain", "done"), ("promote", "done")]
    newest = history.acts(local.client, model, limit=1)[0]
    assert {gate["gate"]: gate["passed"] for gate in newest.gates}["champion"]
    assert look(model, shifted_log).version == 3


@pytest.mark.slow
def test_a_worse_candidate_is_told_of_without_a_promotion_as_well(
    local: Place, model: str, shifted_log: Path, tmp_path: Path
) -> None:
    result = look(model, shifted_log, retrain=str(poisoned(tmp_path)))
    assert acts(result) == [("retrain", "done"), ("promote", "refused")]
    assert "champion:" in result.acts[1].said
    assert history.acts(local.client, model) == []


def test_a_training_that_fails_leaves_the_stage_and_is_told(
    local: Place, model: str, shifted_log: Path, tmp_path: Path, capsys: Any
) -> None:
    table = tmp_path / "one.csv"
    flowers(50)[0].assign(species="setosa").to_csv(table, index=False)
    options = ("--name", model, "--current", shifted_log, "--retrain", table, "--promote", "true")
    lines = told(capsys, *options, code=4)
    said = next(line for line in lines if line.startswith("retrain"))
    assert "failed: target=species:" in said
    assert "has only the class 'setosa'; two are needed" in said
    assert not [line for line in lines if line.startswith("promote")]
    assert registry.stage_holder(local.client, model, "production") == 1
    assert registry.stage_holder(local.client, model, "staging") is None
    run = local.client.get_run(lines[-1].split()[1])
    assert run.info.status == "FINISHED"
    assert run.data.tags["retrain"].startswith("failed: target=species")


def test_a_table_to_train_on_without_a_feature_is_refused_before_a_run(
    local: Place, model: str, shifted_log: Path, tmp_path: Path, capsys: Any
) -> None:
    table = tmp_path / "less.csv"
    flowers(50)[0].drop(columns=SHIFTED).assign(species="setosa").to_csv(table, index=False)
    options = ("--name", model, "--current", shifted_log, "--retrain", table)
    (said,) = told(capsys, *options, code=1)
    assert f"there is no column '{SHIFTED}', a feature of {model} version 1" in said
    assert local.client.get_experiment_by_name(f"{model}-monitoring") is None


def test_without_drift_nothing_is_trained(local: Place, model: str, tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", model, Part(1, *flowers()))
    result = look(model, log, retrain=str(grown(tmp_path)), promote=True)
    assert result.acts == ()
    assert registry.stage_holder(local.client, model, "staging") is None


def test_a_second_look_within_the_cooling_time_trains_nothing(
    local: Place, model: str, shifted_log: Path, tmp_path: Path
) -> None:
    first = record(local, model)
    assert first.claim_retraining("production", DAY) is None
    again = look(model, shifted_log, retrain=str(grown(tmp_path)))
    assert acts(again) == [("retrain", "not started")]
    assert first.run_id in again.acts[0].said
    assert "cooling=1d" in again.acts[0].said
    assert registry.stage_holder(local.client, model, "staging") is None


def record(local: Place, name: str) -> Record:
    return Record(local.client, name, {})


DAY = timedelta(days=1)


def test_a_retraining_is_claimed_again_once_it_has_cooled(local: Place, model: str) -> None:
    first, second, third = (record(local, model) for _ in range(3))
    assert first.claim_retraining("production", DAY) is None
    assert first.run_id in str(second.claim_retraining("production", DAY))
    assert second.claim_retraining("production", timedelta(0)) is None
    assert second.run_id in str(third.claim_retraining("production", DAY))


def test_each_stage_cools_by_itself(local: Place, model: str) -> None:
    assert record(local, model).claim_retraining("production", DAY) is None
    assert record(local, model).claim_retraining("shadow", DAY) is None


def test_of_many_at_once_one_claims_the_retraining(local: Place, model: str) -> None:
    records = [record(local, model) for _ in range(6)]
    with ThreadPoolExecutor(6) as threads:
        said = list(threads.map(lambda r: r.claim_retraining("production", DAY), records))
    (winner,) = [r for r, answer in zip(records, said, strict=True) if answer is None]
    assert all(winner.run_id in answer for answer in said if answer is not None)


def earlier_retraining(local: Place, model: str, at: datetime) -> str:
    """Make a run of a retraining that began when some clock said so."""
    before = record(local, model)
    experiment = local.client.get_run(before.run_id).info.experiment_id
    run = local.client.create_run(experiment, start_time=int(at.timestamp() * 1000))
    before.run_id = run.info.run_id
    assert before.claim_retraining("production", DAY) is None
    return str(run.info.run_id)


def test_a_clock_that_was_years_ahead_stands_in_no_ones_way(local: Place, model: str) -> None:
    earlier_retraining(local, model, datetime.now(timezone.utc) + timedelta(days=900))
    assert record(local, model).claim_retraining("production", DAY) is None


def test_a_clock_that_was_a_little_ahead_cools_all_the_same(local: Place, model: str) -> None:
    before = earlier_retraining(local, model, datetime.now(timezone.utc) + timedelta(minutes=10))
    said = str(record(local, model).claim_retraining("production", DAY))
    assert before in said
    assert "by a clock that is ahead" in said


def test_where_the_run_of_an_earlier_retraining_was_deleted_it_is_told_in_a_line(
    local: Place, model: str
) -> None:
    before = earlier_retraining(local, model, datetime.now(timezone.utc) - timedelta(days=9))
    local.client.delete_run(before)
    said = record(local, model).claim_retraining("production", DAY)
    assert said == f"the run of an earlier retraining, {before}, was deleted: restore it"


def test_a_run_that_the_project_has_opened_ends_well_and_names_the_look(
    local: Place,
    model: str,
    passing: None,
    shifted_log: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_id = runs.start(local.client, "of the project", {})
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    result = look(model, shifted_log, retrain=str(grown(tmp_path)))
    run = local.client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags[CAUSE_TAG] == result.run_id
    assert local.version(model, 3).run_id not in {run_id, result.run_id}


# Parameters.


def entry_point() -> dict[str, Any]:
    content = yaml.safe_load((ROOT / "MLproject").read_text())
    return dict(content["entry_points"]["monitor"])


def test_mlproject_has_the_parameters_of_the_monitor_with_its_defaults() -> None:
    declared = entry_point()["parameters"]
    assert list(declared) == [spec.name for spec in fields(MonitorParams)]
    assert declared.pop("current") == "string"  # has to be given
    for spec in fields(MonitorParams):
        if spec.name in declared:
            number = isinstance(spec.default, (int, float)) and not isinstance(spec.default, bool)
            assert declared[spec.name] == {
                "type": "float" if number else "string",
                "default": spec.default if number else as_text(spec.default),
            }, spec.name


def test_mlproject_passes_every_parameter_of_the_monitor_to_its_option() -> None:
    command = entry_point()["command"].split()
    assert command[:4] == ["python", "-m", "pipeline", "monitor"]
    passed = dict(zip(command[4::2], command[5::2], strict=True))
    assert passed == {
        f"--{spec.name.replace('_', '-')}": f"{{{spec.name}}}" for spec in fields(MonitorParams)
    }
    options = {o.name for o in cli.commands["monitor"].params if isinstance(o, click.Option)}
    assert options == {spec.name for spec in fields(MonitorParams)} | {"verbose"}


def test_the_defaults_of_the_monitor_survive_the_way_through_text() -> None:
    params = MonitorParams(current="log")
    texts = {spec.name: as_text(getattr(params, spec.name)) for spec in fields(MonitorParams)}
    assert MonitorParams.from_text(texts) == params


@pytest.mark.parametrize(
    ("name", "value", "bounds"),
    [
        ("current", "none", "the rows of now have to be given"),
        ("current", " ", "must be a folder of the prediction log"),
        ("since", "yesterday", "a time such as 12h or 7d"),
        ("since", "1", "a time such as 12h or 7d"),
        ("cooling", "-1d", "a time such as 12h or 7d"),
        ("cooling", "none", "a time such as 12h or 7d"),
        ("min_rows", "19", "a whole number of rows from 20"),
        ("min_rows", "200.5", "a whole number of rows from 20"),
        ("alpha", "0", "a number above 0 and below 1"),
        ("alpha", "1", "a number above 0 and below 1"),
        ("alpha", "nan", "a number above 0 and below 1"),
        ("promote", "true", "belongs to retrain=TABLE"),
        ("promote", "yes", "true or false"),
        ("rollback", "true", "takes labels=FILE"),
        ("stage", "v1", "MLflow reserves"),
        ("name", "a/b", "must not be empty"),
    ],
)
def test_a_value_out_of_bounds_is_named_with_its_parameter(
    name: str, value: str, bounds: str
) -> None:
    with pytest.raises(InvalidParameter, match=re.escape(bounds)) as caught:
        MonitorParams.from_text({"current": "log", name: value})
    assert str(caught.value).startswith(f"{name}={value}: ")


def test_candidates_are_not_watched_and_trained_at_once(capsys: Any) -> None:
    options = ("--current", "log", "--stage", "Staging", "--retrain", "table.csv")
    (said,) = told(capsys, *options, code=2)
    assert "retrain=table.csv: a candidate is put into staging, which is what is watched" in said


def test_a_time_is_read_in_its_unit() -> None:
    for text, seconds in (("90s", 90), ("30min", 1800), ("1.5h", 5400), ("7d", 604_800)):
        params = MonitorParams.from_text({"current": "log", "cooling": text})
        assert params.cooling == timedelta(seconds=seconds)


# What the server tells of it.


def test_the_server_tells_what_a_monitor_found_last(
    client: httpx.Client, model: str, local: Place
) -> None:
    def tag(key: str, value: str) -> None:
        local.client.set_model_version_tag(model, "1", key, value)

    def gauge(version: str = "1") -> float:
        return metric(client, "serving_drift", version=version)

    with pytest.raises(AssertionError):
        gauge()
    tag(DRIFT_AT_TAG, "2026-01-02T03:04:05Z")
    for said, value in ((f"drift: {SHIFTED}", 1), ("none", 0), ("unknown", -1), ("drift: x", 1)):
        tag(DRIFT_TAG, said)
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
def test_a_monitor_of_what_a_server_logs_reaches_the_metrics_of_the_server(
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
    lines = told(capsys, *options, code=4)
    assert SHIFTED in lines[0]
    assert "220 labelled rows" in lines[1]
    assert client.post("/-/refresh").is_success
    assert metric(client, "serving_drift") == 1
