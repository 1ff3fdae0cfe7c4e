"""Traces of requests, received by MLflow's own server."""

from __future__ import annotations

import itertools
import signal
import subprocess

import httpx
import pytest
from mlflow import MlflowClient
from mlflow.entities import Span, Trace

from registry_tools.serving.engine.request_steps import RequestSteps
from registry_tools.serving.observers.tracing import tracer_from_environment
from tests.support.constants import IRIS_COLUMNS, IRIS_ROW, LONG
from tests.support.servers import free_port
from tests.support.serving import Serve

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT_ID = "00f067aa0ba902b7"
RECORDS = {"dataframe_records": [dict(zip(IRIS_COLUMNS, map(str, IRIS_ROW), strict=True))]}  # MLflow's code


def traces_of(client: httpx.Client, address: str, experiment: str) -> list[Trace]:
    """End the server, which exports what is left, and return all traces of an experiment."""
    process: subprocess.Popen[bytes] = client.process  # type: ignore[attr-defined]
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 0
    return list(MlflowClient(address).search_traces(locations=[experiment]))


def steps(root: Span, spans: list[Span]) -> list[str]:
    """Return the names of the steps of a request, in order; they fill its span without a gap."""
    inner = sorted((s for s in spans if s.parent_id == root.span_id), key=lambda s: s.start_time_ns)
    assert all(a.end_time_ns <= b.start_time_ns for a, b in itertools.pairwise(inner))
    assert root.start_time_ns <= inner[0].start_time_ns
    assert inner[-1].end_time_ns <= root.end_time_ns
    return [span.name for span in inner]


@pytest.mark.slow
def test_each_prediction_request_is_a_trace_at_an_mlflow_server(
    serve: Serve, model: str, tracking_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = MlflowClient(tracking_server).create_experiment("traces")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", tracking_server)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"x-mlflow-experiment-id={experiment}")
    client = serve(f"{model}@production")
    parent = {"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-01"}
    assert client.post("/predict", json={"features": IRIS_ROW}).status_code == 200
    assert client.post("/predict", json={"features": IRIS_ROW, "proba": True}, headers=parent).is_success
    assert client.post("/invocations", json=RECORDS).status_code == 200
    assert client.post("/predict", json={"features": ["x"]}).status_code == 400
    assert client.post("/predict", json={"features": IRIS_ROW}, headers={"host": "x"}).status_code == 400
    client.get("/health")
    traces = traces_of(client, tracking_server, experiment)
    found = {}
    for trace in traces:
        spans = trace.data.spans
        (root,) = [s for s in spans if s.name.startswith("POST ")]
        key = (root.attributes["http.route"], root.attributes["http.response.status_code"], len(spans))
        found[key] = root, spans
    assert sorted(found) == [
        ("/invocations", 200, 5),
        ("/predict", 200, 5),
        ("/predict", 200, 7),
        ("/predict", 400, 1),
        ("/predict", 400, 2),
    ]
    one = ["decode", "queue", "predict", "encode"]
    assert steps(*found["/invocations", 200, 5]) == one
    root, spans = found["/predict", 200, 5]
    assert steps(root, spans) == one
    assert (root.attributes["model.version"], root.attributes["model.rows"]) == ("1", 1)
    assert steps(*found["/predict", 400, 2]) == ["decode"]
    root, spans = found["/predict", 200, 7]
    assert steps(root, spans) == ["decode", *["queue", "predict"] * 2, "encode"]
    assert (root.trace_id.removeprefix("tr-"), root.parent_id) == (TRACE_ID, PARENT_ID)


@LONG
@pytest.mark.slow
def test_a_receiver_that_is_down_costs_no_request(
    serve: Serve, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    client = serve(f"{model}@production")
    for _ in range(50):
        assert client.post("/predict", json={"features": IRIS_ROW}).status_code == 200
    process: subprocess.Popen[bytes] = client.process  # type: ignore[attr-defined]
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 0


def test_a_server_without_a_receiver_does_not_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    assert tracer_from_environment() is None
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert tracer_from_environment() is None


def test_the_steps_of_a_request_follow_each_other() -> None:
    once = [("decode", 1), ("queue", 2), ("predict", 3), ("encode", 4)]
    again = [("queue", 5), ("predict", 6), ("encode", 7)]
    assert RequestSteps(0, [*once, *again]).intervals(9) == [
        ("decode", (1, 2)),
        ("queue", (2, 3)),
        ("predict", (3, 4)),
        ("queue", (5, 6)),
        ("predict", (6, 7)),
        ("encode", (7, 9)),
    ]
    assert RequestSteps(0, [("decode", 1)]).intervals(4) == [("decode", (1, 4))]
    assert RequestSteps(0).intervals(4) == []
    waiting = RequestSteps(0, [("decode", 1), ("queue", 2)])  # cancelled in the queue
    assert ("queue", (2, 9)) in waiting.intervals(9)
