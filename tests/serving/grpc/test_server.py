"""The gRPC server beside the HTTP server: its messages, keys, cancelled calls and its end."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import infer_signature
from prometheus_client.parser import text_string_to_metric_families
from sklearn.linear_model import LogisticRegression

from registry_tools.serving.grpc.messages import SERVICE, message_classes
from registry_tools.serving.observers.metrics import Metrics
from registry_tools.serving.processes.http_server import HttpServer
from registry_tools.serving.rest import mlflow as mlflow_protocol
from registry_tools.serving.rest import open_inference, openapi, predict, status
from registry_tools.serving.rest.app import HttpApp
from registry_tools.serving.service import InferenceService
from registry_tools.serving.settings import Settings
from tests.support.predictors import save_and_load
from tests.support.servers import free_port

ROUTED = (mlflow_protocol, open_inference, openapi, predict, status)
X = pd.DataFrame({"a": np.arange(6.0), "b": np.arange(6.0)})
SECRETS = ("penguins", "7041", "production")  # what only clients with a key may know


def service_of(folder: Path, model: Any, **settings: Any) -> InferenceService:
    """Return a service of one loaded version; several in one process have metrics of their own."""
    service = InferenceService(Settings(ref="penguins@production", **settings), Metrics())
    service.data_plane.current = save_and_load(
        folder, model, signature=infer_signature(X, np.zeros(6)), input_example=X.head(1)
    )
    return service


@asynccontextmanager
async def serving(service: InferenceService) -> AsyncIterator[tuple[HttpServer, httpx.AsyncClient, Any]]:
    """Serve over HTTP and gRPC in this process; yield the server and a client for each."""
    server = HttpServer(service)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        running = asyncio.create_task(server.serve_on(listening))
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        async with (
            httpx.AsyncClient(base_url=address, timeout=120) as client,
            grpc.aio.insecure_channel(f"127.0.0.1:{service.settings.grpc_port}") as channel,
        ):
            await channel.channel_ready()
            try:
                yield server, client, channel
            finally:
                server.end()
                await running


def call(channel: Any, method: str, metadata: Any = (), **fields: Any) -> Any:
    """Call a method of the protocol."""
    request, response = message_classes()[method]
    ask = channel.unary_unary(f"/{SERVICE}/{method}", request.SerializeToString, response.FromString)
    return ask(request(**fields), metadata=metadata, timeout=120)


def infer(channel: Any) -> Any:
    """Predict one row."""
    contents = {"fp64_contents": [1, 2]}
    rows = {"name": "rows", "datatype": "FP64", "shape": [1, 2], "contents": contents}
    return call(channel, "ModelInfer", model_name="penguins", inputs=[rows])


async def until(check: Callable[[], bool]) -> None:
    """Wait until something is so; fail after a minute."""
    for _ in range(3000):
        if check():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not come to pass")


async def refusal_of(response: Any) -> grpc.aio.AioRpcError | None:
    """Return the error of a call; None if there is none."""
    try:
        await response
    except grpc.aio.AioRpcError as error:
        return error
    return None


STARTED, RELEASED = threading.Event(), threading.Event()


class Waiting(mlflow.pyfunc.PythonModel):
    """Predicts when the test lets it."""

    def predict(self, context, model_input, params=None):
        STARTED.set()
        assert RELEASED.wait(timeout=120)
        return np.zeros(len(model_input))


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[InferenceService]:
    RELEASED.set()  # for its example
    service = service_of(tmp_path, Waiting(), grpc_port=free_port())
    STARTED.clear()
    RELEASED.clear()
    yield service
    RELEASED.set()


def counted(service: InferenceService) -> dict[str, float]:
    """Return the number of gRPC calls that predict, by code."""
    families = text_string_to_metric_families(service.metrics.exposition().decode())
    samples = (sample for family in families for sample in family.samples)
    return {
        s.labels["code"]: s.value
        for s in samples
        if s.name == "serving_request_seconds_count" and s.labels["route"] == "grpc ModelInfer"
    }


def test_a_cancelled_call_does_not_count_as_a_success(waiting: InferenceService) -> None:
    async def run() -> None:
        async with serving(waiting) as (_, _, channel):
            pending = infer(channel)
            await until(STARTED.is_set)
            pending.cancel()
            await until(lambda: bool(counted(waiting)))
            assert counted(waiting) == {"499": 1}
            RELEASED.set()
            await infer(channel)
            assert counted(waiting) == {"499": 1, "200": 1}

    asyncio.run(run())


def test_grpc_stops_to_accept_together_with_http(waiting: InferenceService) -> None:
    async def run() -> None:
        async with serving(waiting) as (server, client, channel):
            rows = {"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2]]}}
            slow = asyncio.create_task(client.post("/invocations", json=rows))
            pending = infer(channel)
            await until(lambda: waiting.grpc_in_flight == 1 and waiting.http_in_flight() == 1)
            await until(STARTED.is_set)
            server.end()
            refused = None
            while refused is None:
                refused = await refusal_of(call(channel, "ServerLive"))
            # gRPC cancels a call that it receives while it stops.
            assert refused.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
            assert not slow.done()
            RELEASED.set()
            assert (await slow).status_code == 200
            assert (await pending).model_name == "penguins"

    asyncio.run(run())


def test_grpc_takes_the_key_in_both_headers_and_tells_nothing_without(tmp_path: Path) -> None:
    service = service_of(
        tmp_path, LogisticRegression().fit(X, X["a"] > 2), grpc_port=free_port(), api_keys=("the-key",)
    )
    fields = {
        "ModelReady": [{"name": "penguins"}, {"name": "penguins", "version": "7041"}, {"name": "other"}],
        "ModelMetadata": [{"name": "penguins"}, {"name": "other"}],
        "ModelInfer": [{"model_name": "penguins"}, {"model_name": "other"}],
    }

    async def run() -> None:
        async with serving(service) as (_, _, channel):
            for header, value in (("authorization", "Bearer the-key"), ("x-api-key", "the-key")):
                assert (await call(channel, "ModelReady", [(header, value)], name="penguins")).ready
            public = set()
            for method in message_classes():
                for content in fields.get(method, [{}]):
                    refused = await refusal_of(call(channel, method, [("x-api-key", "another")], **content))
                    if refused is None:
                        public.add(method)
                        continue
                    assert refused.code() is grpc.StatusCode.UNAUTHENTICATED
                    shown = f"{refused.details()} {refused.trailing_metadata()} {refused.initial_metadata()}"
                    assert not any(secret in shown for secret in SECRETS), shown
            assert public == {"ServerLive", "ServerReady"}

    asyncio.run(run())


def test_no_http_route_tells_a_client_without_a_key_what_is_served(tmp_path: Path) -> None:
    service = service_of(tmp_path, LogisticRegression().fit(X, X["a"] > 2), api_keys=("the-key",))
    app = HttpApp(service)
    paths = [path for module in ROUTED for path in module.ROUTES]
    paths += ["/v2/models/penguins/versions/7041/ready", "/v2/models/penguins/versions/7041", "/nowhere"]
    paths += [path.replace("{name}", name) for path in paths for name in ("penguins", "other") if "{" in path]

    async def run() -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            ready = await client.get("/v2/models/penguins/ready", headers={"x-api-key": "the-key"})
            assert (ready.status_code, ready.headers["x-model-version"]) == (200, "7041")
            for path in paths:
                for method in ("GET", "HEAD", "POST"):
                    reply = await client.request(method, path, headers={"x-api-key": "another"})
                    assert not [name for name in reply.headers if name.startswith("x-model")], path
                    assert not any(secret in reply.text for secret in SECRETS), (path, reply.text)
                    if "/v2/models/" in path:
                        assert reply.status_code == 401, path

    asyncio.run(run())
