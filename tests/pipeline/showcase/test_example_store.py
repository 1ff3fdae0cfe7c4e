"""The example store of the repository: its content, and that opening it does not change it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import alembic.command
import pytest
from mlflow import MlflowClient
from mlflow.store.db.utils import _get_alembic_config
from sklearn.datasets import load_iris

from pipeline.showcase import servers
from registry_tools.mlflow_store import stages
from tests.support.constants import LONG, ROOT
from tests.support.servers import BIN, free_port, wait_until_up

EXAMPLE = ROOT / "mlruns_example"
# All runs but the training of the best trial of a sweep, which may be another one on another processor.
OTHERS = (
    "run_uuid NOT IN (SELECT run_uuid FROM tags WHERE key = 'mlflow.parentRunId' "
    "EXCEPT SELECT run_uuid FROM tags WHERE key = 'kind' AND value = 'trial')"
)
Start = Callable[..., subprocess.Popen[bytes]]


def files(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def shown(start: Start, tmp_path: Path) -> str:
    """The address of the example store, opened from a read-only folder."""
    moved = tmp_path / "moved elsewhere"
    shutil.copytree(EXAMPLE, moved)
    for path in [moved, *moved.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    port = free_port()
    command = (sys.executable, "-m", "pipeline", "show-example", "--folder", moved)
    process = start(*command, "--port", str(port), cwd=ROOT)
    wait_until_up(f"http://127.0.0.1:{port}/health", process)
    return f"http://127.0.0.1:{port}"


def test_the_store_is_small_and_holds_no_user_or_machine_names() -> None:
    content = {path: path.read_bytes() for path in EXAMPLE.rglob("*") if path.is_file()}
    assert sum(map(len, content.values())) <= 8 << 20
    here = (Path.home(), ROOT, ROOT.parent, Path(tempfile.gettempdir()))
    places = [b"/home/", b"/Users/", *(bytes(place) + b"/" for place in here)]
    host = socket.gethostname().encode()
    for path, text in content.items():
        assert not [place for place in places if place in text], path
        # A short name may occur in a picture by chance.
        assert len(host) < 5 or host not in text, path
    with contextlib.closing(sqlite3.connect(f"file:{EXAMPLE}/mlflow.db?mode=ro", uri=True)) as db:
        tags = "SELECT value FROM tags WHERE key IN ('mlflow.user', 'actor')"
        users = set(db.execute(f"{tags} UNION SELECT user_id FROM runs"))
    assert users == {("example",), ("unknown",)}


@pytest.mark.slow
def test_the_store_has_every_kind_of_entity_to_show(shown: str) -> None:
    client = MlflowClient(shown)
    iris = client.get_experiment_by_name("iris")
    runs = client.search_runs([iris.experiment_id])
    assert len(runs) == 8
    assert len({run.data.params["estimator"] for run in runs}) == 5
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert all(run.info.artifact_uri.startswith("mlflow-artifacts:/") for run in runs)
    assert all("Where it fails" in run.data.tags["mlflow.note.content"] for run in runs)
    assert stages.stage_holder(client, "iris", "production") == 3
    assert stages.stage_holder(client, "iris", "staging") == 8
    assert stages.stage_holder(client, "digits", "production") == 3
    assert stages.stage_holder(client, "diabetes", "production") == 1
    digits = client.get_experiment_by_name("digits").experiment_id
    assert len(client.search_runs([digits], "tags.kind = 'trial'")) == 16
    losses = [run for run in client.search_runs([digits]) if "loss/validation" in run.data.metrics]
    assert {run.data.params["estimator"] for run in losses} == {"xgboost", "lightgbm"}
    monitored = client.get_experiment_by_name("iris-monitoring").experiment_id
    (timeline,) = client.search_runs([monitored], "tags.kind = 'timeline'")
    live = client.get_metric_history(timeline.info.run_id, "live/accuracy")
    assert [point.step for point in live] == list(range(6))
    experiments = client.search_experiments(filter_string="name != 'Default'")
    assert all("mlflow.note.content" in experiment.tags for experiment in experiments)
    views = [any(key.startswith("mlflow.sharedViewState") for key in e.tags) for e in experiments]
    assert all(views), [experiment.name for experiment in experiments]
    history = client.get_experiment_by_name("iris-promotions").experiment_id
    events = client.search_runs([history], "tags.stage = 'production'")
    outcomes = [(run.data.tags["action"], run.data.params["outcome"]) for run in events]
    assert outcomes == [
        ("rollback", "applied"),
        ("promote", "applied"),
        ("promote", "refused"),
        ("promote", "applied"),
    ]


@pytest.mark.slow
def test_the_production_version_predicts_and_the_store_stays_unchanged(shown: str, tmp_path: Path) -> None:
    before = files(tmp_path / "moved elsewhere")
    done = subprocess.run(
        [BIN / "registry-tools", "predict", "iris@production", "--features", "6.0,2.5,4.5,1.5"],
        env=os.environ | {"MLFLOW_TRACKING_URI": shown},
        capture_output=True,
        text=True,
    )
    assert "versicolor" in done.stdout, done.stderr
    MlflowClient(shown).set_experiment_tag("1", "changed", "in the copy")
    assert files(tmp_path / "moved elsewhere") == before


@LONG
@pytest.mark.slow
def test_the_monitor_works_on_a_version_of_the_example_store(shown: str, tmp_path: Path) -> None:
    rows = load_iris(as_frame=True).data.sample(300, replace=True, random_state=1)
    rows.to_csv(tmp_path / "same.csv", index=False)
    rows["petal width (cm)"] += 0.8
    rows.to_csv(tmp_path / "wider.csv", index=False)
    for name, code, output in (
        ("same.csv", 0, "ok        iris version 3 in production: 300 rows: no drift"),
        ("wider.csv", 4, "DRIFT     iris version 3 in production: 300 rows: drift in petal width"),
    ):
        done = subprocess.run(
            [BIN / "python", "-m", "pipeline", "monitor", "--current", tmp_path / name],
            env=os.environ | {"MLFLOW_TRACKING_URI": shown},
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, done.stderr
        assert done.stdout.startswith(output)


@pytest.mark.slow
def test_the_server_ends_on_a_signal_and_leaves_no_files(start: Start, tmp_path: Path) -> None:
    port = free_port()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    process = start(
        *(sys.executable, "-m", "pipeline", "show-example", "--port", str(port)),
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(scratch)},
    )
    wait_until_up(f"http://127.0.0.1:{port}/health", process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 0
    assert not list(scratch.iterdir())
    output = (tmp_path / "process-0.log").read_text().splitlines()
    assert output[0].startswith(f"http://127.0.0.1:{port}")
    assert len(output) == 6


@pytest.mark.slow
def test_a_store_of_an_older_mlflow_is_upgraded_in_the_copy(start: Start, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(EXAMPLE, old)
    alembic.command.downgrade(_get_alembic_config(f"sqlite:///{old}/mlflow.db"), "-1")
    before = files(old)
    port = free_port()
    command = (sys.executable, "-m", "pipeline", "show-example", "--folder", old)
    process = start(*command, "--port", str(port), cwd=ROOT)
    wait_until_up(f"http://127.0.0.1:{port}/health", process)
    client = MlflowClient(f"http://127.0.0.1:{port}")
    assert stages.stage_holder(client, "iris", "production") == 3
    assert files(old) == before


@LONG
@pytest.mark.slow(minutes=3)
@pytest.mark.timeout(900)
def test_two_builds_of_the_store_differ_only_in_times_and_ids(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "pipeline", "make-example", "--folder", tmp_path / "again"],
        cwd=ROOT,
        check=True,
    )
    again, committed = tables_of(tmp_path / "again"), tables_of(EXAMPLE)
    for what, rows in committed.items():
        assert again[what] == rows, what
    metrics = metrics_of(EXAMPLE)
    assert_same_metrics(metrics_of(tmp_path / "again"), metrics)
    assert len(metrics) > 100


def rows_of(folder: Path, query: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(f"file:{folder}/mlflow.db?mode=ro", uri=True)) as db:
        return sorted(db.execute(query))


def tables_of(folder: Path) -> dict[str, list[Any]]:
    """Return the content that two builds must share, with names instead of ids."""
    queries = {
        "experiments": "SELECT name, key FROM experiments JOIN experiment_tags USING (experiment_id)",
        "runs": f"SELECT experiment_id, name, status FROM runs WHERE {OTHERS}",
        "parameters": "SELECT name, key, value FROM params JOIN runs USING (run_uuid) "
        f"WHERE key NOT LIKE 'next%' AND key NOT LIKE 'timeline%' AND {OTHERS}",  # ids
        "tags": "SELECT name, key FROM tags JOIN runs USING (run_uuid) "
        f"WHERE key NOT LIKE 'mlflow.source.git%' AND {OTHERS}",  # they depend on the checkout
        "datasets": "SELECT name, digest FROM datasets",
        "stages": "SELECT name, alias, version FROM registered_model_aliases",
        "legacy stages": "SELECT name, version, current_stage FROM model_versions",
        "versions": "SELECT name, version, key FROM model_version_tags",
    }
    # The name of an image of a run contains a time and an id.
    unique = r"\+timestamp\+\d+\+[0-9a-f-]{36}"
    files = [re.sub(unique, "", path.name) for path in (folder / "artifacts").rglob("*") if path.is_file()]
    return {what: rows_of(folder, query) for what, query in queries.items()} | {"files": sorted(files)}


def metrics_of(folder: Path) -> list[tuple[Any, ...]]:
    """Return the run name, the key, the step and the value of each metric."""
    # The steps of the best of a sweep follow the order in which its trials end.
    columns = "name, key, step, value FROM metrics JOIN runs USING (run_uuid)"
    return rows_of(folder, f"SELECT {columns} WHERE key NOT LIKE 'best/%' AND {OTHERS}")


def assert_same_metrics(actual: list[tuple[Any, ...]], expected: list[tuple[Any, ...]]) -> None:
    """Compare names, keys and steps exactly, and values roughly.

    Trees of two processors differ: the last digits of a sum decide which column splits a node. A p-value is
    many times another after one more error.
    """
    assert [row[:3] for row in actual] == [row[:3] for row in expected]
    for (*_, value), (run, key, step, stored) in zip(actual, expected, strict=True):
        if key != "seconds":
            assert value == pytest.approx(stored, rel=0.25, abs=0.1), f"{run}: {key} at step {step}"


def test_the_comparison_of_metrics_allows_only_for_differences_of_processors() -> None:
    stored = [("svc", "accuracy", 0, 0.95), ("svc", "loss/train", 1, 1.6), ("svc", "seconds", 0, 1.0)]
    others = [
        ("svc", "accuracy", 0, 0.95 + 1 / 120),
        ("svc", "loss/train", 1, 1.7),
        ("svc", "seconds", 0, 9.0),
    ]
    assert_same_metrics(others, stored)
    for place, other in (
        (0, ("svc", "accuracy", 0, 0.6)),
        (1, ("svc", "loss/train", 1, 2.2)),
        (1, ("svc", "loss/train", 2, 1.6)),
        (1, ("svc", "loss/validation", 1, 1.6)),
        (2, ("knn", "seconds", 0, 1.0)),
    ):
        changed = [*stored[:place], other, *stored[place + 1 :]]
        with pytest.raises(AssertionError):
            assert_same_metrics(changed, stored)
    with pytest.raises(AssertionError):
        assert_same_metrics(stored[:2], stored)


def refused(*arguments: str | Path) -> str:
    """Run `show-example`, which must fail before it prints an address, and return its stderr."""
    command = [sys.executable, "-m", "pipeline", "show-example", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == ""
    return done.stderr


def test_a_port_in_use_is_refused() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        output = refused("--port", port)
    assert f"port {port} cannot be used (Address already in use)" in output


def test_a_server_that_ignores_the_signal_to_end_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import signal, sys; from http.server import HTTPServer, SimpleHTTPRequestHandler as Files; "
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "HTTPServer(('127.0.0.1', int(sys.argv[2])), Files).serve_forever()"
    )
    (tmp_path / "health").touch()
    monkeypatch.setattr(servers, "_END_SECONDS", 0.2)
    command = [sys.executable, "-c", code]
    with servers.run_server(command, tmp_path, dict(os.environ), "server") as (_, process):
        assert process.poll() is None
    assert process.returncode == -signal.SIGKILL


def test_a_port_that_is_taken_before_the_server_listens_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import sys; from http.server import HTTPServer, SimpleHTTPRequestHandler as Files; "
        "HTTPServer(('127.0.0.1', int(sys.argv[2])), Files).serve_forever()"
    )
    (tmp_path / "health").touch()
    command = [sys.executable, "-c", code]
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        taken, free = other.getsockname()[1], free_port()
        ports = iter([taken, free])
        monkeypatch.setattr(servers, "free_port", lambda: next(ports))
        with servers.run_server(command, tmp_path, dict(os.environ), "server") as (port, process):
            assert (port, process.poll()) == (free, None)
        assert process.poll() is not None
        with (
            pytest.raises(servers.PortTaken, match="Address already in use"),
            servers.run_server(command, tmp_path, dict(os.environ), "server", taken),
        ):
            pass


def test_a_folder_without_a_store_is_reported_in_one_line(tmp_path: Path) -> None:
    assert "run `make example` to build one" in refused("--folder", tmp_path, "--port", str(free_port()))
