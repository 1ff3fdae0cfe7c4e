"""Fixtures: processes, a tracking server, and model servers with their HTTP clients."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry_tools.mlflow_store import stages
from tests.support.constants import IRIS_COLUMNS, IRIS_ROW
from tests.support.registries import Place
from tests.support.servers import BIN, end_group, free_port, wait_until_up

Serve = Callable[..., httpx.Client]
POLL = 0.2  # seconds between two polls of a server that the tests start
ROWS = [IRIS_ROW, [5.0, 3.4, 1.5, 0.2], [6.7, 3.0, 5.2, 2.3]]
SPLIT = {"dataframe_split": {"columns": IRIS_COLUMNS, "data": ROWS}}
Responses = list[tuple[int, str, Any]]  # status, version, predictions


def server_processes(client: httpx.Client) -> set[int]:
    """Return the ids of the child processes of a server."""
    pid = client.process.pid  # type: ignore[attr-defined]
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def versions(client: httpx.Client) -> set[int]:
    """Return the versions that the workers serve, asked over 20 connections."""
    found = set()
    for _ in range(20):
        with httpx.Client(base_url=client.base_url, timeout=120) as another:
            found.add(another.get("/model").json()["version"])
    return found


def end(client: httpx.Client) -> None:
    """End a server, and check that its exit code is 0."""
    process: subprocess.Popen[bytes] = client.process  # type: ignore[attr-defined]
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 0


def worker_of(client: httpx.Client) -> int:
    """Return the process id of the only worker of a server."""
    (worker,) = server_processes(client)
    return worker


@contextlib.contextmanager
def under_load(client: httpx.Client, threads: int = 4) -> Iterator[Responses]:
    """Send requests on several connections until the body ends; yield the responses."""
    responses: Responses = []
    over = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=client.base_url, timeout=120) as another:
            while True:
                reply = another.post("/invocations", json=SPLIT)
                version = reply.headers.get("x-model-version", "")
                responses.append((reply.status_code, version, reply.json().get("predictions")))
                if over.is_set():  # after the request: a short body also gets one
                    return

    with ThreadPoolExecutor(threads) as pool:
        asking = [pool.submit(ask) for _ in range(threads)]
        try:
            yield responses
        finally:
            over.set()
            for each in asking:
                each.result()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start processes that end with the test, each in its own process group."""
    running: list[subprocess.Popen[bytes]] = []

    def log_of(number: int) -> Path:
        return tmp_path / f"process-{number}.log"

    def run(*command: str | Path, **options: object) -> subprocess.Popen[bytes]:
        log = log_of(len(running)).open("wb")
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **options,  # type: ignore[call-overload]
        )
        log.close()
        running.append(process)
        return process

    yield run
    for number, process in enumerate(running):
        end_group(process)
        sys.stdout.write(log_of(number).read_text(errors="replace")[-5000:])  # shown if the test failed


@pytest.fixture
def tracking_server(
    start: Callable[..., subprocess.Popen[bytes]], empty_database: Path, tmp_path: Path
) -> str:
    """The address of a real `mlflow server` over SQLite that also keeps the artifacts."""
    folder = tmp_path / "server"
    folder.mkdir()
    shutil.copy(empty_database, folder / "mlflow.db")
    port = free_port()
    process = start(
        BIN / "mlflow",
        "server",
        *("--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{folder}/mlflow.db"),
        *("--artifacts-destination", str(folder / "artifacts")),
        cwd=folder,
    )
    address = f"http://127.0.0.1:{port}"
    wait_until_up(f"{address}/health", process)
    return address


@pytest.fixture
def serve(local: Place, start: Callable[..., subprocess.Popen[bytes]]) -> Iterator[Serve]:
    """Start model servers; each call returns a client whose attribute `process` is the server."""
    clients = []

    def run(ref: str, *options: str) -> httpx.Client:
        port = free_port()
        command = (BIN / "registry-tools", "serve", ref, "--port", str(port), "--poll", str(POLL))
        process = start(*command, *options)
        address = f"http://127.0.0.1:{port}"
        wait_until_up(f"{address}/health", process)
        client = httpx.Client(base_url=address, timeout=120)
        client.process = process  # type: ignore[attr-defined]
        clients.append(client)
        return client

    yield run
    for client in clients:
        client.close()


@pytest.fixture
def client(serve: Serve, model: str) -> httpx.Client:
    return serve(f"{model}@production")


@pytest.fixture(scope="session")
def reading(sqlite_place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    """The HTTP and gRPC ports of a server of version 1 of `trained`, for tests that only read."""
    stages.move_alias(sqlite_place.client, "trained", "production", 1)
    ports = {"http": free_port(), "grpc": free_port()}
    with (tmp_path_factory.mktemp("reading") / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(BIN / "registry-tools", "serve", "trained@production"),
                *("--port", str(ports["http"]), "--grpc-port", str(ports["grpc"])),
                *("--tracking-uri", sqlite_place.uri),
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until_up(f"http://127.0.0.1:{ports['http']}/ready", process)
        yield ports
    finally:
        end_group(process)


@pytest.fixture
def reader(reading: dict[str, int]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{reading['http']}", timeout=120) as client:
        yield client
