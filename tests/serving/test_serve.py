"""The server as a process: it predicts, follows its stage, and survives what goes wrong."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import mlflow
import pandas as pd
import pytest

from pipeline.params.definitions import TrainParams
from pipeline.training.train import train
from registry_tools import load_model
from registry_tools.mlflow_store import stages
from registry_tools.policy.tag_names import DIGEST_TAG
from tests.support.constants import IRIS_COLUMNS as NAMES
from tests.support.constants import IRIS_ROW as ROW
from tests.support.constants import LONG, ROOT
from tests.support.registries import GOOD, POOR, Place
from tests.support.servers import BIN, eventually, free_port, metric, wait_until_up
from tests.support.serving import ROWS, Serve, under_load


def version_of(client: httpx.Client) -> int:
    reply = client.post("/predict", json={"features": ROW})
    assert reply.status_code == 200, reply.text
    return int(reply.headers["x-model-version"])


def test_a_row_is_predicted_and_the_version_named(reader: httpx.Client) -> None:
    reply = reader.post("/predict", json={"features": ROW})
    assert reply.json() == {"prediction": "versicolor", "prediction_index": 1}
    assert reply.headers["x-model-name"] == "trained"
    assert reply.headers["x-model-stage"] == "production"
    split = {"dataframe_split": {"columns": NAMES[::-1], "data": [ROW[::-1]]}}
    assert reader.post("/invocations", json=split).json() == {"predictions": [1]}
    proba = reader.post("/invocations", json={**split, "params": {"method": "predict_proba"}})
    assert sum(proba.json()["predictions"][0]) == pytest.approx(1)
    text = ",".join(NAMES) + "\n" + ",".join(map(str, ROW)) + "\n"
    for kind in ("text/csv", "text/csv; charset=utf-8"):
        csv = reader.post("/invocations", content=text, headers={"content-type": kind})
        assert csv.json() == {"predictions": [1]}
    described = reader.get("/model").json()
    assert (described["version"], described["last_error"]) == (1, None)
    assert metric(reader, "serving_rows_total", version="1") >= 4
    for path in ("/ping", "/health", "/version"):
        assert reader.head(path).status_code == reader.get(path).status_code == 200


def test_rows_by_name_and_lists_of_rows_are_predicted(reader: httpx.Client) -> None:
    one = {"prediction": "versicolor", "prediction_index": 1}
    named = dict(zip(NAMES[::-1], ROW[::-1], strict=True))
    assert reader.post("/predict", json={"features": named}).json() == one
    predicted = reader.post("/invocations", json={"inputs": [dict(zip(NAMES, r, strict=True)) for r in ROWS]})
    for rows in (ROWS, [dict(zip(NAMES, row, strict=True)) for row in ROWS], ROWS * 5000):
        reply = reader.post("/predict", json={"features": rows}).json()
        codes = [entry["prediction_index"] for entry in reply["predictions"]]
        assert codes == predicted.json()["predictions"] * (len(rows) // 3)
        assert reply["predictions"][0] == one
    assert reader.post("/predict", json={"features": [ROW]}).json() == {"predictions": [one]}


def test_probabilities_are_given_by_class_name(reader: httpx.Client) -> None:
    split = {"columns": NAMES, "data": ROWS}
    body = {"dataframe_split": split, "params": {"method": "predict_proba"}}
    wanted = reader.post("/invocations", json=body).json()["predictions"]
    classes = ["setosa", "versicolor", "virginica"]
    reply = reader.post("/predict", json={"features": ROWS, "proba": True}).json()
    for entry, values in zip(reply["predictions"], wanted, strict=True):
        assert entry["probabilities"] == dict(zip(classes, values, strict=True))
        assert entry["prediction"] == max(entry["probabilities"], key=entry["probabilities"].get)
    one = reader.post("/predict", json={"features": ROW, "proba": True}).json()
    assert one["probabilities"] == pytest.approx(reply["predictions"][0]["probabilities"])
    assert "probabilities" not in reader.post("/predict", json={"features": ROW, "proba": False}).json()


def test_the_interface_is_described_by_the_signature(reader: httpx.Client) -> None:
    described = reader.get("/openapi.json").json()
    assert described["openapi"].startswith("3.1")
    for path, operations in described["paths"].items():
        if "post" in operations:
            body = operations["post"]["requestBody"]["content"]["application/json"]
            assert reader.post(path, json=body["example"]).status_code == 200, path
        else:
            assert reader.get(path).status_code == 200, path
    rows = described["components"]["schemas"]
    assert [column["title"] for column in rows["Values"]["prefixItems"]] == NAMES
    assert list(rows["NamedValues"]["properties"]) == rows["NamedValues"]["required"] == NAMES
    page = reader.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "/openapi.json" in page.text
    assert reader.get("/").headers["location"] == "/docs"


def test_a_bad_row_is_refused_with_a_reason(reader: httpx.Client) -> None:
    for body, message in (
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "features are missing"),
        (b'{"features": [1, 2]}', "2 features given, 4 are needed"),
        (b'{"features": [1, 2, "secret", 4]}', "is not numeric"),
        (b'{"features": [1, 2, true, 4]}', "is not numeric"),
        (b'{"features": [1, 2, NaN, 4]}', "is not finite"),
        (b'{"features": [1, 2, 1e999, 4]}', "is not finite"),
        (b'{"features": [1, 2, 1%s, 4]}' % (b"0" * 400), "is not finite"),
        (b'{"features": 1}', "send {"),
        (b'{"features": [[1, 2, 3, 4], [1, 2, "secret", 4]]}', "row 1: feature 'petal length (cm)'"),
        (b'{"features": [[1, 2, 3, 4], [1, 2]]}', "row 1: 2 features given, 4 are needed"),
        (b'{"features": [[1, 2, 3, 4], "secret"]}', "row 1: features is not a list"),
        (b'{"features": {"petal lenght (cm)": 1}}', "did you mean 'petal length (cm)'?"),
        (b'{"features": {"petal length (cm)": 1}}', "missing features 'sepal length (cm)'"),
        (b'{"features": [1, 2, [3], 4]}', "is not numeric"),
        (b'{"features": [1, 2, 3, 4], "proba": 1}', "neither true nor false"),
        (b'{"features": [1, 2, 3, 4], "prob": true}', "key 'prob' is unknown"),
    ):
        reply = reader.post("/predict", content=body)
        assert reply.status_code == 400, (body[:50], reply.text)
        assert message in reply.json()["error"]
        assert "secret" not in reply.text


def test_a_bad_invocation_is_refused_as_mlflow_does_and_without_an_echo(reader: httpx.Client) -> None:
    json = "application/json"
    misspelt = b'{"dataframe_split": {"columns": ["petal widht (cm)"], "data": [[1]]}}'
    for body, kind, status, message in (
        (b"{}", None, 415, "missing"),
        (b'{"dataframe_split": {"columns": 5, "data": [[1, 2]]}}', json, 400, ""),
        (b"{}", "text/plain", 415, "not supported"),
        (b"{}", "application/json; charset=latin-1", 415, "UTF-8"),
        (b"{}", json, 400, "exactly one of"),
        (misspelt, json, 400, "petal width (cm)"),
        (b'{"dataframe_records": [{"x": "secret"}]}', json, 400, "missing column"),
        (b'{"inputs": [], "params": {"mood": 1}}', json, 400, "mood"),
        (b'{"inputs": [[1, 2, 3, 4]]}', json, 400, "name no columns"),
        (b"a,b\n1", "text/csv", 400, "first line is the header"),
        (",".join(NAMES).encode() + b"\n1,2,secret,4", "text/csv", 400, "'petal length (cm)', row 0"),
        (b"PAR1", "application/vnd.apache.parquet", 400, ""),
    ):
        headers = {} if kind is None else {"content-type": kind}
        reply = reader.post("/invocations", content=body, headers=headers)
        assert reply.status_code == status, (body, reply.text)
        assert message in reply.json()["message"]
        assert "secret" not in reply.text
        assert "Traceback" not in reply.text
    assert version_of(reader) == 1


def test_a_promotion_and_a_rollback_reach_live_traffic_without_a_lost_request(
    serve: Serve, local: Place
) -> None:
    model = local.model(GOOD, POOR)
    expected = {version: load_model(f"{model}/{version}").predict(ROWS).tolist() for version in "12"}
    assert expected["1"] != expected["2"]
    stages.move_alias(local.client, model, "production", 1)
    client = serve(f"{model}@production")
    with under_load(client, 2) as responses:
        for version in (2, 1, 2):
            stages.move_alias(local.client, model, "production", version)
            eventually(lambda wanted=version: version_of(client) == wanted)
    assert {status for status, _, _ in responses} == {200}
    assert {version for _, version, _ in responses} == {"1", "2"}
    assert all(predictions == expected[version] for _, version, predictions in responses)


@pytest.mark.slow
def test_a_changed_file_does_not_take_over(serve: Serve, model: str, local: Place) -> None:
    client = serve(f"{model}@production")
    local.client.set_model_version_tag(model, "2", DIGEST_TAG, "0" * 64)
    stages.move_alias(local.client, model, "production", 2)
    eventually(lambda: client.get("/model").json()["candidate"] is not None)
    candidate = client.get("/model").json()["candidate"]
    assert candidate["version"] == 2
    assert "after registration" in candidate["error"]
    assert version_of(client) == 1
    assert metric(client, "serving_failed_rollouts_total", reason="verification") >= 1
    stages.move_alias(local.client, model, "production", 1)
    eventually(lambda: client.get("/model").json()["candidate"] is None)


@pytest.mark.slow
def test_a_deleted_stage_is_reported_and_served_on(client: httpx.Client, model: str, local: Place) -> None:
    local.client.delete_registered_model_alias(model, "production")
    reply = client.post("/-/refresh")
    assert "no version" in reply.json()["last_error"]
    assert version_of(client) == 1


@pytest.mark.slow
def test_a_run_of_the_project_serves(local: Place, start: Callable[..., subprocess.Popen[bytes]]) -> None:
    port = free_port()
    process = start(
        *(BIN / "mlflow", "run", ROOT, "-e", "serve", "--env-manager", "local"),
        *("-P", "ref=trained/1", "-P", f"port={port}", "-P", "poll=1s"),
        env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"},
    )
    wait_until_up(f"http://127.0.0.1:{port}/ready", process)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        assert version_of(client) == 1


@pytest.mark.slow
def test_a_version_by_its_number_stays(serve: Serve, model: str, local: Place) -> None:
    client = serve(f"{model}/1")
    stages.move_alias(local.client, model, "production", 2)
    assert client.post("/-/refresh").json()["version"] == 1
    assert version_of(client) == 1


@pytest.mark.slow
def test_a_request_in_flight_completes_before_the_end(client: httpx.Client) -> None:
    rows = {"dataframe_split": {"columns": NAMES, "data": [ROW] * 150_000}}
    with ThreadPoolExecutor(1) as pool:
        posted = pool.submit(client.post, "/invocations", json=rows)
        time.sleep(0.4)
        process: subprocess.Popen[bytes] = client.process  # type: ignore[attr-defined]
        process.send_signal(signal.SIGTERM)
        assert len(posted.result().json()["predictions"]) == 150_000
    assert process.wait(timeout=120) == 0


@pytest.mark.slow
def test_the_access_log_holds_requests_and_never_values(serve: Serve, model: str, tmp_path: Path) -> None:
    client = serve(f"{model}@production", "--access-log")
    client.post("/predict", json={"features": [6.0, 2.5, 4.5, 77.125]})
    client.post("/predict", json={"features": ["secret"]}, headers={"x-request-id": "seven"})
    client.process.send_signal(signal.SIGTERM)  # type: ignore[attr-defined]
    client.process.wait(timeout=120)  # type: ignore[attr-defined]
    log = next(tmp_path.glob("process-*.log")).read_text()
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    posted = [line for line in lines if line["path"] == "/predict"]
    assert [(line["status"], line["rows"], line["version"]) for line in posted] == [
        (200, 1, "1"),
        (400, 0, "1"),
    ]
    assert posted[1]["request_id"] == "seven"
    assert "77.125" not in log
    assert "secret" not in log


@LONG
@pytest.mark.slow
def test_a_start_without_the_registry_serves_from_the_cache(serve: Serve, model: str, tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    client = serve(f"{model}@production", "--cache", cache)
    assert client.get("/model").json()["from_cache"] is False
    away = serve(f"{model}@production", "--cache", cache, "--tracking-uri", "http://127.0.0.1:9")
    described = away.get("/model").json()
    assert (described["version"], described["from_cache"]) == (1, True)
    eventually(lambda: metric(away, "serving_registry_response_age_seconds") > 0.5)
    assert version_of(away) == 1


@pytest.mark.slow
def test_the_key_is_required_and_the_probes_need_none(serve: Serve, model: str, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("# of the tests\none-key\nanother-key\n")
    client = serve(f"{model}@production", "--api-key-file", str(keys))
    body = {"features": ROW}
    assert client.post("/predict", json=body).status_code == 401
    for key, status in (("no", 401), ("another-key", 200)):
        reply = client.post("/predict", json=body, headers={"authorization": f"Bearer {key}"})
        assert reply.status_code == status
    assert client.get("/ready").status_code == 200
    assert client.get("/model").status_code == 401


@pytest.mark.slow
def test_too_large_a_request_is_refused(serve: Serve, model: str) -> None:
    client = serve(f"{model}@production", "--max-body", "1", "--max-rows", "2")
    split = {"dataframe_split": {"columns": NAMES, "data": [ROW] * 3}}
    assert client.post("/invocations", json=split).status_code == 400
    rows = client.post("/predict", json={"features": [ROW] * 3})
    assert (rows.status_code, "3 rows in one request" in rows.text) == (400, True)
    large = client.build_request("POST", "/predict", content=b"x" * (1 << 21))
    with contextlib.suppress(httpx.WriteError):  # it may hang up while there is more to send
        refused = client.send(large)
        assert refused.status_code == 413
    parquet = io.BytesIO()
    pd.DataFrame(dict.fromkeys(NAMES, [1.0] * 3)).to_parquet(parquet)
    kind = {"content-type": "application/vnd.apache.parquet"}
    many = client.post("/invocations", content=parquet.getvalue(), headers=kind)
    assert many.status_code == 400
    assert "3 rows in one request, 2 are allowed" in many.text
    assert version_of(client) == 1


@pytest.mark.slow
def test_the_first_unusual_request_costs_the_usual_ones_nothing(client: httpx.Client) -> None:
    over = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=client.base_url, timeout=120) as another:
            while not over.is_set():
                version_of(another)

    with ThreadPoolExecutor(2) as threads:
        asking = [threads.submit(ask) for _ in range(2)]
        # pandas, pyarrow and all of MLflow are imported for it.
        records = {"dataframe_records": [dict(zip(NAMES, map(str, ROW), strict=True))]}
        reply = client.post("/invocations", json=records)
        text = ",".join(NAMES) + "\n" + ",".join(map(str, ROW)) + "\n"
        csv = client.post("/invocations", content=text, headers={"content-type": "text/csv"})
        over.set()
        for each in asking:
            each.result()
    assert reply.json() == csv.json() == {"predictions": [1]}


@LONG
@pytest.mark.slow
def test_a_worker_that_is_killed_comes_back_and_the_others_go_on(
    serve: Serve, model: str, local: Place
) -> None:
    client = serve(f"{model}@production", "--workers", "2")
    process: subprocess.Popen[bytes] = client.process  # type: ignore[attr-defined]

    def workers() -> set[int]:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        return set(map(int, children.split()))

    before = workers()
    assert len(before) == 2
    os.kill(min(before), signal.SIGKILL)
    os.kill(max(before), signal.SIGTERM)
    eventually(lambda: not workers() & before)

    def versions() -> set[int]:
        found = set()
        for _ in range(20):  # connections, which both workers accept
            with httpx.Client(base_url=client.base_url, timeout=120) as another:
                found.add(version_of(another))
        return found

    assert versions() == {1}
    eventually(lambda: len(workers()) == 2 and not workers() & before)
    stages.move_alias(local.client, model, "production", 2)
    eventually(lambda: versions() == {2})
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_with_exit_code_0_on_a_signal(client: httpx.Client, number: signal.Signals) -> None:
    process: subprocess.Popen[bytes] = client.process  # type: ignore[attr-defined]
    process.send_signal(number)
    assert process.wait(timeout=120) == 0


@pytest.mark.parametrize(
    ("ref", "message", "code"),
    [
        ("nonsense", "names no version and no stage", 2),
        ("nobody@production", "no registered model", 1),
        pytest.param("trained@nowhere", "no version of", 1, marks=pytest.mark.slow),
    ],
)
def test_a_reference_that_cannot_be_served_is_an_error_of_one_line(
    local: Place, ref: str, message: str, code: int
) -> None:
    done = subprocess.run(
        [BIN / "registry-tools", "serve", ref, "--port", "0"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == code
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@LONG
@pytest.mark.slow
def test_a_model_of_mixed_columns_is_served_by_every_protocol(
    serve: Serve, store: str, table_csv: Path
) -> None:
    trained = train(TrainParams(data=str(table_csv), target="kind", name="animals"))
    mlflow.set_tracking_uri(None)
    assert trained.version == 1
    client = serve("animals/1", "--tracking-uri", store)
    table = pd.read_csv(table_csv).drop(columns=["kind", "planet"]).astype(object)
    rows = table.where(table.notna(), None).to_numpy().tolist()[:12]
    split = {"dataframe_split": {"columns": list(table.columns), "data": rows}}
    reply = client.post("/invocations", json=split)
    codes = reply.json()["predictions"]
    assert set(codes) == {0, 1}
    for row, code in zip(rows, codes, strict=True):
        one = client.post("/predict", json={"features": row}).json()
        assert one == {"prediction": ["cat", "dog"][code], "prediction_index": code}
    named = [{n: v for n, v in zip(table.columns, row, strict=True) if v is not None} for row in rows]
    by_name = client.post("/predict", json={"features": named, "proba": True}).json()["predictions"]
    assert [entry["prediction_index"] for entry in by_name] == codes
    assert all(set(entry["probabilities"]) == {"cat", "dog"} for entry in by_name)
    datatypes = {
        entry["name"]: entry["datatype"] for entry in client.get("/v2/models/animals").json()["inputs"]
    }
    whole = [row for row in rows if None not in row]
    tensors = [
        {
            "name": name,
            "shape": [len(whole), 1],
            "datatype": "BOOL" if type(values[0]) is bool else datatypes[name],
            "data": list(values),
        }
        for name, values in zip(table.columns, zip(*whole, strict=True), strict=True)
    ]
    outputs = client.post("/v2/models/animals/infer", json={"inputs": tensors}).json()["outputs"]
    assert outputs[0]["data"] == [c for r, c in zip(rows, codes, strict=True) if None not in r]
    for features, message in (
        (["heavy", *rows[0][1:]], "is not numeric"),
        ([*rows[0][:3], 7, *rows[0][4:]], "is not text"),
    ):
        reply = client.post("/predict", json={"features": features})
        assert reply.status_code == 400
        assert message in reply.json()["error"]
    assert client.get("/docs").status_code == 200
