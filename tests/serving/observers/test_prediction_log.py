"""Rows and predictions, written as Parquet while the server runs."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import infer_signature
from sklearn.linear_model import LinearRegression

from pipeline.params.definitions import TrainParams
from pipeline.training.train import train
from registry_tools.inference.model_artifact import ModelArtifact
from registry_tools.inference.model_loader import load
from registry_tools.mlflow_store import stages
from registry_tools.models import artifacts
from registry_tools.serving.engine.prediction_events import PredictionEvent
from registry_tools.serving.observers import prediction_log
from registry_tools.serving.settings import Settings
from tests.support.constants import IRIS_COLUMNS, IRIS_ROW
from tests.support.predictors import save_and_load
from tests.support.registries import Place
from tests.support.servers import BIN, eventually, metric
from tests.support.serving import Serve, worker_of


def logged(folder: Path) -> pd.DataFrame:
    files = sorted(folder.rglob("*.parquet"))
    tables = [pd.read_parquet(file) for file in files]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def ask(client: httpx.Client, row: list[float] | None = None) -> str:
    reply = client.post("/predict", json={"features": row or IRIS_ROW})
    assert reply.status_code == 200
    return reply.headers["x-request-id"]


@pytest.mark.slow
def test_rows_and_predictions_are_found_again_by_the_request_id(
    serve: Serve, model: str, tmp_path: Path
) -> None:
    client = serve(f"{model}@production", "--log-predictions", "log", "--log-every", "0.3")
    own = ask(client)
    split = {"dataframe_split": {"columns": IRIS_COLUMNS, "data": [IRIS_ROW, [5, 3.4, 1.5, 0.2]]}}
    for params in ({}, {"params": {"method": "predict_proba"}}):
        client.post("/invocations", json=split | params, headers={"x-request-id": f"given{params}"})
    csv = ",".join(IRIS_COLUMNS) + "\n6.0,2.5,4.5,\n"  # MLflow's own reader refuses the hole
    assert client.post("/invocations", content=csv, headers={"content-type": "text/csv"}).is_error
    records = {"dataframe_records": [dict(zip(IRIS_COLUMNS, map(str, IRIS_ROW), strict=True))]}
    assert client.post("/invocations", json=records).status_code == 200
    eventually(lambda: len(logged(tmp_path / "log")) == 6)
    table = logged(tmp_path / "log")
    assert table["_request_id"][0] == own
    assert table["_request_id"].nunique() == 4
    assert table["_row"].tolist() == [0, 0, 1, 0, 1, 0]
    assert table[IRIS_COLUMNS].iloc[0].tolist() == IRIS_ROW
    assert table["_prediction"].tolist() == [1, 1, 0, 1, 0, 1]
    assert table["_prediction_name"][0] == "versicolor"
    assert table["_probabilities"].map(lambda each: each.argmax()).tolist() == [1, 1, 0, 1, 0, 1]
    assert set(table["_version"]) == {1}
    age = pd.Timestamp.now("UTC") - table["_at"]
    assert age.between(pd.Timedelta(0), pd.Timedelta("1min")).all()
    assert metric(client, "serving_log_rows_total", outcome="logged") == 6


@pytest.mark.slow
def test_rows_of_other_types_cost_no_other_rows_and_a_request_is_logged_once(
    serve: Serve, store: str, table_csv: Path, tmp_path: Path
) -> None:
    train(TrainParams(plots=False, data=str(table_csv), target="kind", name="animals"))
    mlflow.set_tracking_uri(None)
    options = ("--log-predictions", "log", "--log-every", "0.5", "--tracking-uri", store)
    client = serve("animals/1", *options)
    rows = [["x", 4, 25.0, "brown", True, True], [3.5, 4, None, True, True, None]]
    names = ["weight", "legs", "size", "colour", "sold", "tame"]
    sent = 0
    for row in (rows[1], [3.5, 4, 20.0, "grey", False, False], [3, 4, 20, None, True, True]):
        content = {"dataframe_split": {"columns": names, "data": [row]}}
        sent += client.post("/invocations", json=content).status_code == 200
    columns = {name: [value] for name, value in zip(names, [3.0, 4, 20.0, "x", True, True], strict=True)}
    sent += client.post("/invocations", json={"inputs": columns}).status_code == 200
    assert sent >= 3
    eventually(lambda: len(logged(tmp_path / "log")) == sent)
    table = logged(tmp_path / "log")
    assert pd.api.types.is_float_dtype(table["weight"])
    assert metric(client, "serving_rows_total") == sent
    with pytest.raises(AssertionError):
        metric(client, "serving_log_rows_total", outcome="failed")


@pytest.mark.slow
def test_two_outputs_of_a_request_are_logged_once(serve: Serve, model: str, tmp_path: Path) -> None:
    client = serve(f"{model}@production", "--log-predictions", "log", "--log-every", "0.3")
    rows = {"name": "x", "shape": [1, 4], "datatype": "FP64", "data": IRIS_ROW}
    both = [{"name": "predict"}, {"name": "predict_proba"}]
    reply = client.post(f"/v2/models/{model}/infer", json={"inputs": [rows], "outputs": both})
    assert len(reply.json()["outputs"]) == 2
    eventually(lambda: len(logged(tmp_path / "log")) == 1)
    time.sleep(0.7)
    assert len(logged(tmp_path / "log")) == 1
    assert metric(client, "serving_rows_total") == 1


@pytest.mark.slow
def test_rows_beyond_the_limit_are_dropped_and_counted(
    local: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction_log, "_MOST_CELLS", 50)
    counts: dict[str, int] = {}

    def count(rows: int, outcome: str) -> None:
        counts[outcome] = counts.get(outcome, 0) + rows

    with artifacts.model_files(local.client, "trained", 1) as files:
        shutil.copytree(files, tmp_path / "source" / "model")
    artifact = ModelArtifact(str(tmp_path / "source"), "trained", 1, None, None, None)
    predictor = load(artifact, Settings(ref="trained/1").trust_policy)
    log = prediction_log.PredictionLog(tmp_path / "log", 1.0, 60, count)
    for number in range(20):
        rows = np.array([IRIS_ROW])
        log.observe(PredictionEvent(predictor, "predict", [rows], [[1]], [str(number)]))
    log.close()
    assert counts == {"logged": 6, "dropped": 14}
    assert len(logged(tmp_path / "log")) == 6


def test_two_servers_with_one_process_id_write_files_of_different_names(tmp_path: Path) -> None:
    table = pd.DataFrame({"a": np.arange(9.0)})
    model = LinearRegression().fit(table, table["a"])
    predictor = save_and_load(tmp_path, model, signature=infer_signature(table, table["a"]))
    rows = table[:1].to_numpy()
    for _ in range(2):  # as in two containers
        log = prediction_log.PredictionLog(tmp_path / "log", 1.0, 60, lambda *counts: None)
        log.observe(PredictionEvent(predictor, "predict", [rows], [[0.0]], ["one"]))
        log.close()
    assert len(list((tmp_path / "log").rglob("*.parquet"))) == 2


@pytest.mark.slow
def test_each_version_has_files_of_its_own_and_the_end_leaves_nothing_behind(
    serve: Serve, model: str, local: Place, tmp_path: Path
) -> None:
    client = serve(f"{model}@production", "--log-predictions", "log", "--workers", "2")
    first = {ask(client) for _ in range(20)}
    stages.move_alias(local.client, model, "production", 2)
    eventually(lambda: client.get("/model").json()["version"] == 2)
    second = {ask(client) for _ in range(20)}
    assert not logged(tmp_path / "log").size
    client.process.send_signal(signal.SIGTERM)  # type: ignore[attr-defined]
    assert client.process.wait(timeout=120) == 0  # type: ignore[attr-defined]
    table = logged(tmp_path / "log")
    for version, wanted in ((1, first), (2, second)):
        assert set(table["_request_id"][table["_version"] == version]) == wanted


@pytest.mark.slow
def test_a_share_of_the_requests_is_logged(serve: Serve, model: str, tmp_path: Path) -> None:
    options = ("--log-predictions", "log", "--log-every", "0.3", "--sample", "0.2")
    client = serve(f"{model}@production", *options)
    for _ in range(400):
        ask(client)
    time.sleep(0.6)
    assert 40 <= len(logged(tmp_path / "log")) <= 130  # 80 ± 6 standard deviations


@pytest.mark.slow
def test_after_a_kill_every_file_is_whole_and_only_the_last_moments_are_lost(
    serve: Serve, model: str, tmp_path: Path
) -> None:
    client = serve(f"{model}@production", "--log-predictions", "log", "--log-every", "0.5")
    sent: list[tuple[float, str]] = []
    began = time.monotonic()
    while time.monotonic() < began + 3:
        sent.append((time.monotonic(), ask(client)))
    os.kill(worker_of(client), signal.SIGKILL)
    killed = time.monotonic()
    table = logged(tmp_path / "log")  # which reads every file to its end
    found = set(table["_request_id"])
    assert len(found) == len(table)
    assert found <= {name for _, name in sent}
    lost = [at for at, name in sent if name not in found]
    assert all(at > killed - 1.5 for at in lost)  # what waits, and a file that is being written


@pytest.mark.slow
def test_a_full_disk_loses_rows_and_no_response(
    model: str, local: Place, start: Callable[..., subprocess.Popen[bytes]], serve: Serve, tmp_path: Path
) -> None:
    client = serve(f"{model}@production", "--log-predictions", "log", "--log-every", "0.2")
    ask(client)
    eventually(lambda: len(logged(tmp_path / "log")) == 1)
    # As a full disk does it: from here on, no file can grow.
    pid = worker_of(client)
    unlimited = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, unlimited[1]))
    for _ in range(20):
        ask(client)
    eventually(lambda: "File too large" in str(client.get("/model").json()["prediction_log"]))
    assert metric(client, "serving_log_rows_total", outcome="failed") > 0
    resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)
    eventually(lambda: ask(client) and len(logged(tmp_path / "log")) > 1)
    assert not [name for name in os.listdir(tmp_path / "log" / model) if name.endswith(".part")]


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_is_an_error_at_once(
    local: Place, start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    done = subprocess.run(
        [BIN / "registry-tools", "serve", "trained/1", "--log-predictions", "file"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert "predictions cannot be logged there" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
