"""The parent process: it starts processes again, passes signals on, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path

import httpx
import pytest

from registry_tools.mlflow_store import stages
from registry_tools.policy.tag_names import DIGEST_TAG
from tests.support.constants import IRIS_COLUMNS, IRIS_ROW
from tests.support.registries import GOOD, POOR, Place
from tests.support.servers import eventually
from tests.support.serving import Serve, end, server_processes, versions

pytestmark = pytest.mark.slow


def test_a_refresh_reaches_every_worker(serve: Serve, model: str, local: Place) -> None:
    client = serve(f"{model}@production", "--workers", "2", "--poll", "600")
    eventually(lambda: len(server_processes(client)) == 2)
    stages.move_alias(local.client, model, "production", 2)
    assert client.post("/-/refresh").json()["version"] == 2
    eventually(lambda: versions(client) == {2})


def test_workers_end_when_their_parent_is_killed(serve: Serve, model: str) -> None:
    client = serve(f"{model}@production", "--workers", "2", "--shadow", f"{model}@production")
    eventually(lambda: len(server_processes(client)) == 3)
    children = server_processes(client)
    client.process.kill()  # type: ignore[attr-defined]
    client.process.wait()  # type: ignore[attr-defined]
    eventually(lambda: not any(Path(f"/proc/{child}").exists() for child in children))


def test_a_worker_starts_again_while_the_registry_is_gone(
    serve: Serve, local: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = local.model(GOOD, POOR)
    stages.move_alias(local.client, name, "production", 1)
    client = serve(f"{name}@production")
    database = Path(local.uri.removeprefix("sqlite:///"))
    (worker,) = server_processes(client)
    database.rename(database.with_suffix(".away"))
    try:
        os.kill(worker, signal.SIGKILL)
        eventually(lambda: answers(client))
        assert client.get("/model").json()["from_cache"] is True
    finally:
        database.with_suffix(".away").rename(database)
    stages.move_alias(local.client, name, "production", 2)
    eventually(lambda: client.get("/model").json()["version"] == 2)


def answers(client: httpx.Client) -> bool:
    try:
        return client.post("/predict", json={"features": IRIS_ROW}).status_code == 200
    except httpx.TransportError:
        return False


def test_the_cache_is_used_while_the_artifact_store_is_gone(
    serve: Serve, local: Place, tmp_path: Path
) -> None:
    name = local.model(GOOD)
    stages.move_alias(local.client, name, "production", 1)
    client = serve(f"{name}@production", "--cache", "cache")
    assert client.get("/model").json()["from_cache"] is False
    end(client)
    source = Path(local.client.get_model_version_download_uri(name, "1"))
    source.rename(source.with_name("away"))
    try:
        client = serve(f"{name}@production", "--cache", "cache")
        state = client.get("/model").json()
        assert (state["version"], state["from_cache"]) == (1, True)
        # It serves from a copy: MLflow reads that for an unusual request.
        shutil.rmtree("cache")
        text = {"dataframe_records": [dict(zip(IRIS_COLUMNS, map(str, IRIS_ROW), strict=True))]}
        assert client.post("/invocations", json=text).status_code == 200
    finally:
        source.with_name("away").rename(source)


def test_a_version_that_cannot_be_fetched_leaves_no_files(serve: Serve, local: Place) -> None:
    name = local.model(GOOD, POOR)
    local.client.set_model_version_tag(name, "2", DIGEST_TAG, "0" * 64)
    stages.move_alias(local.client, name, "production", 1)
    client = serve(f"{name}@production", "--poll", "0.05")
    (worker,) = server_processes(client)
    stages.move_alias(local.client, name, "production", 2)
    eventually(lambda: (client.get("/model").json()["candidate"] or {}).get("tries", 0) > 3)
    (scratch,) = Path(tempfile.gettempdir()).glob(f"serving-*-{worker}-*")
    assert [folder.name.partition("-")[0] for folder in scratch.iterdir()] == ["1"]
    end(client)
    assert not scratch.exists()
