"""Real stores, a real tracking server and real processes; MLflow is nowhere mocked."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # read when mlflow is imported
# The jobs of `mlflow server` are those of generative AI: processes that cost more than the tests.
os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"

import httpx
import mlflow
import pytest
import sklearn
from mlflow import MlflowClient

from pipeline.params.definitions import TrainParams
from pipeline.training.train import TrainResult, train
from registry_tools.mlflow_store import heartbeat, stages
from tests.support import places
from tests.support.places import EQUAL, GOOD, Place
from tests.support.postgres import Postgres, has_postgres, postgres
from tests.support.servers import BIN, end_group, free_port, wait_until_up

ROOT = Path(__file__).parents[2]
_KEPT = {
    "MLFLOW_LOGGING_LEVEL",
    "MLFLOW_DISABLE_TELEMETRY",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION",
}
IRIS_ROW = [6.0, 2.5, 4.5, 1.5]
IRIS_COLUMNS = [
    *("sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)"),
]
Serve = Callable[..., httpx.Client]
POLL = 0.2  # seconds; of the servers that the tests start


@pytest.fixture(autouse=True)
def _no_global_state(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test starts and ends without a tracking URI, a run or an experiment of another."""
    for name in list(os.environ):
        if name.startswith("MLFLOW_") and name not in _KEPT:
            monkeypatch.delenv(name)
    with sklearn.config_context():  # what answers as the server does leaves its checks out
        yield
    while mlflow.active_run():
        mlflow.end_run("KILLED")
    mlflow.set_tracking_uri(None)
    mlflow.set_registry_uri(None)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite store with MLflow's tables and nothing in them: making one takes seconds."""
    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    before = Path.cwd()
    os.chdir(path.parent)  # where the first experiment keeps its artifacts
    try:
        MlflowClient(f"sqlite:///{path}").search_registered_models()
    finally:
        os.chdir(before)
    return path


@pytest.fixture
def store(empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URI of an empty store in the test's own folder, which is also where the test runs."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


@dataclass(frozen=True)
class Trained:
    """A store with two versions of `iris`, the second in staging, for tests that only read."""

    uri: str
    folder: Path
    first: TrainResult
    second: TrainResult


@pytest.fixture(scope="session")
def trained_once(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    shutil.copy(empty_database, folder / "mlflow.db")
    uri = f"sqlite:///{folder}/mlflow.db"
    before = Path.cwd()
    os.chdir(folder)
    mlflow.set_tracking_uri(uri)
    try:
        first, second = train(TrainParams()), train(TrainParams(model="knn", plots=False))
    finally:
        mlflow.set_tracking_uri(None)
        os.chdir(before)
    return Trained(uri, folder, first, second)


@pytest.fixture
def trained(trained_once: Trained, monkeypatch: pytest.MonkeyPatch) -> Trained:
    """The shared store as the one that MLflow itself takes."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", trained_once.uri)
    return trained_once


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start processes that end with the test, each the leader of a group of its own."""
    running: list[subprocess.Popen[bytes]] = []

    def run(*command: str | Path, **options: object) -> subprocess.Popen[bytes]:
        log = (tmp_path / f"process-{len(running)}.log").open("wb")
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
    for process in running:
        end_group(process)


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
def table_csv(tmp_path: Path) -> Path:
    """A table that is not Iris: numbers and text with holes, a boolean, a constant column."""
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(7)
    rows = 120
    kind = rng.choice(["cat", "dog"], rows)
    dog = kind == "dog"
    table = pd.DataFrame(
        {
            "weight": np.where(dog, 20.0, 4.0) + rng.normal(0, 1.5, rows),
            "legs": rng.integers(3, 5, rows),
            "size": np.where(dog, 60, 25) + rng.integers(-5, 6, rows),
            "colour": np.where(dog, "brown", "grey"),
            "sold": rng.random(rows) < 0.5,
            "tame": np.where(dog, True, rng.random(rows) < 0.5).astype(object),
            "planet": "earth",
            "kind": kind,
        }
    ).astype({"size": "float64"})
    table.loc[rng.random(rows) < 0.1, "size"] = np.nan
    table.loc[rng.random(rows) < 0.1, "colour"] = None
    table.loc[rng.random(rows) < 0.1, "tame"] = None
    path = tmp_path / "animals.csv"
    table.to_csv(path, index=False)
    return path


@pytest.fixture(scope="session")
def sqlite_place(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    return places.sqlite_place(empty_database, tmp_path_factory.mktemp("sqlite"))


@pytest.fixture(scope="session")
def server_place(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with places.server_place(empty_database, tmp_path_factory.mktemp("server")) as place:
        yield place


@pytest.fixture(scope="session")
def database() -> Iterator[Postgres]:
    """A real PostgreSQL, in which a test makes databases of its own."""
    with postgres() as running:
        yield running


@pytest.fixture(scope="session")
def guarded_place(
    request: pytest.FixtureRequest, empty_database: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    database = request.getfixturevalue("database") if has_postgres() else None
    folder = tmp_path_factory.mktemp("guarded")
    with places.guarded_place(empty_database, folder, database) as place:
        yield place


@pytest.fixture(
    params=[
        "sqlite_place",
        pytest.param("server_place", marks=pytest.mark.slow),
        pytest.param("guarded_place", marks=pytest.mark.slow),
    ]
)
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A registry with three trained runs: SQLite, a server, and one as a team shares it."""
    found: Place = request.getfixturevalue(request.param)
    monkeypatch.chdir(tmp_path)
    for name, value in {"MLFLOW_TRACKING_URI": found.uri, **found.environment}.items():
        monkeypatch.setenv(name, value)
    return found


@pytest.fixture
def local(sqlite_place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The registry on SQLite alone, for what does not depend on where it is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", sqlite_place.uri)
    return sqlite_place


@pytest.fixture
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take an act for killed sooner than in life, to be done sooner."""
    monkeypatch.setattr(heartbeat, "HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setattr(heartbeat, "EXPIRY_SECONDS", 0.5)


@pytest.fixture
def serve(local: Place, start: Callable[..., subprocess.Popen[bytes]]) -> Iterator[Serve]:
    """Start servers; each call returns a client, whose `process` is the server."""
    clients = []

    def run(ref: str, *options: str) -> httpx.Client:
        port = free_port()
        command = (BIN / "registry-tools", "serve", ref, "--port", str(port), "--poll", str(POLL))
        process = start(*command, *options)
        address = f"http://127.0.0.1:{port}"
        wait_until_up(f"{address}/health", process)
        client = httpx.Client(base_url=address, timeout=20)
        client.process = process  # type: ignore[attr-defined]
        clients.append(client)
        return client

    yield run
    for client in clients:
        client.close()


@pytest.fixture
def model(local: Place) -> str:
    """A model with two versions, the first in production."""
    name = local.model(GOOD, EQUAL)
    stages.move_alias(local.client, name, "production", 1)
    return name


@pytest.fixture
def client(serve: Serve, model: str) -> httpx.Client:
    return serve(f"{model}@production")


@pytest.fixture(scope="session")
def reading(
    sqlite_place: Place, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, int]]:
    """A server of version 1 of `trained` for tests that only ask; the ports it listens on."""
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
    with httpx.Client(base_url=f"http://127.0.0.1:{reading['http']}", timeout=20) as client:
        yield client
