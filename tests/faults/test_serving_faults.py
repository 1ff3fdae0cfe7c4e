"""What goes wrong around a server, and in it: real processes, killed and starved and misled."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression, SGDOneClassSVM

from registry_tools import load_model
from registry_tools.mlflow_store import stages
from registry_tools.policy.tag_names import DIGEST_TAG
from tests.support.constants import IRIS_COLUMNS, IRIS_ROW, LONG
from tests.support.registries import EQUAL, GOOD, POOR, Change, Place, crafted, train_all
from tests.support.servers import BIN, end_group, eventually, free_port, memory, metric, wait_until_up
from tests.support.serving import POLL, ROWS, Serve, under_load, worker_of

pytestmark = pytest.mark.slow


def process_of(client: httpx.Client) -> subprocess.Popen[bytes]:
    process: subprocess.Popen[bytes] = client.process  # type: ignore[attr-defined]
    return process


def version_of(client: httpx.Client) -> int:
    return int(client.get("/model").json()["version"])


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_hundred_promotions_under_load_lose_no_request(serve: Serve, local: Place, workers: str) -> None:
    name = local.model(GOOD, POOR)
    stages.move_alias(local.client, name, "production", 1)
    wanted = {str(v): load_model(f"{name}/{v}").predict(ROWS).tolist() for v in (1, 2)}
    assert wanted["1"] != wanted["2"]
    client = serve(f"{name}@production", "--poll", "0.05", "--workers", workers)
    with under_load(client) as responses:
        for number in range(100):
            version = 2 - number % 2
            stages.move_alias(local.client, name, "production", version)
            eventually(lambda version=version: version_of(client) == version)
            if number == 20:
                before = total_memory(client)
    assert {status for status, _, _ in responses} == {200}
    assert {version for _, version, _ in responses} == {"1", "2"}
    assert all(found == wanted[version] for _, version, found in responses)
    assert metric(client, "serving_failed_rollouts_total") == 0
    # Each worker follows the stage for itself: a second one may have missed a version.
    assert 101 <= metric(client, "serving_rollouts_total") <= 101 * int(workers)
    assert total_memory(client) < before + (30 << 20) * int(workers)  # the old ones were freed


def total_memory(client: httpx.Client) -> int:
    """Return the resident bytes of all workers of a server."""
    pid = process_of(client).pid
    return sum(map(memory, map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())))


@LONG
def test_a_rollback_reaches_the_server_within_its_poll_and_a_second(serve: Serve, local: Place) -> None:
    name = local.model(GOOD, POOR)
    for version, options in ((1, ()), (2, ("--force", "--reason", "a test"))):
        promote = [BIN / "registry-tools", "promote", f"{name}/{version}", "--to", "production"]
        subprocess.run([*promote, *options], check=True, capture_output=True)
    client = serve(f"{name}@production")
    assert version_of(client) == 2
    rollback = [BIN / "registry-tools", "rollback", name, "--reason", "a test"]
    subprocess.run(rollback, check=True, capture_output=True)
    eventually(lambda: version_of(client) == 1, seconds=POLL + 1)


def unfitted(folder: Path, content: dict[str, Any]) -> None:
    skops.io.dump(LogisticRegression(), folder / "model.skops")


def of_a_strange_type(folder: Path, content: dict[str, Any]) -> None:
    strange = SGDOneClassSVM().fit(np.zeros((3, 4)))
    strange.extra = np.random.Generator(np.random.PCG64(1)).random  # a type on nobody's list
    skops.io.dump(strange, folder / "model.skops")


def cut_off(folder: Path, content: dict[str, Any]) -> None:
    file = folder / "model.skops"
    file.write_bytes(file.read_bytes()[:-100])


def of_fewer_columns(folder: Path, content: dict[str, Any]) -> None:
    fitted = LogisticRegression().fit(np.eye(3), [0, 1, 2])
    skops.io.dump(fitted, folder / "model.skops")


@LONG
@pytest.mark.parametrize("change", [unfitted, of_a_strange_type, cut_off, of_fewer_columns])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_broken_version_does_not_take_over(
    serve: Serve, local: Place, change: Change, workers: str
) -> None:
    name = crafted(local, change).partition("/")[0]
    stages.move_alias(local.client, name, "production", 1)
    client = serve(f"{name}@production", "--workers", workers)
    with under_load(client, 1) as responses:
        stages.move_alias(local.client, name, "production", 2)
        eventually(lambda: client.get("/model").json()["candidate"] is not None)
    assert {(status, version) for status, version, _ in responses} == {(200, "1")}
    candidate = client.get("/model").json()["candidate"]
    assert candidate["version"] == 2
    assert candidate["error"]
    assert client.get("/ready").status_code == 200
    stages.move_alias(local.client, name, "production", 1)
    eventually(lambda: client.get("/model").json()["candidate"] is None)


def test_many_broken_versions_do_not_take_the_files_of_the_good_one(serve: Serve, local: Place) -> None:
    name = local.model(GOOD, *[POOR] * 4)
    for version in range(2, 6):
        local.client.set_model_version_tag(name, str(version), DIGEST_TAG, "0" * 64)
    stages.move_alias(local.client, name, "production", 1)
    client = serve(f"{name}@production", "--workers", "2")
    for version in range(2, 6):
        stages.move_alias(local.client, name, "production", version)
        eventually(
            lambda version=version: (client.get("/model").json()["candidate"] or {}).get("version") == version
        )
    pid = process_of(client).pid
    children = Path(f"/proc/{pid}/task/{pid}/children")
    before = set(children.read_text().split())
    for child in before:
        os.kill(int(child), signal.SIGKILL)
    eventually(lambda: len(set(children.read_text().split()) - before) == 2)
    records = {"dataframe_records": [dict(zip(IRIS_COLUMNS, map(str, IRIS_ROW), strict=True))]}
    reply = httpx.post(client.base_url.join("/invocations"), json=records, timeout=120)
    assert (reply.status_code, reply.headers["x-model-version"]) == (200, "1")


def test_a_model_that_was_made_anew_under_its_number_takes_over(serve: Serve, local: Place) -> None:
    name = local.model(GOOD)
    stages.move_alias(local.client, name, "production", 1)
    client = serve(f"{name}@production")
    before = client.get("/model").json()["run_id"]
    local.client.delete_registered_model(name)
    local.add(name, POOR)
    stages.move_alias(local.client, name, "production", 1)
    eventually(lambda: client.get("/model").json()["run_id"] != before)
    assert version_of(client) == 1


def test_the_registry_dies_and_comes_back_under_load(
    serve: Serve, empty_database: Path, start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    folder = tmp_path / "registry"
    folder.mkdir()
    shutil.copy(empty_database, folder / "mlflow.db")
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    command = (
        *(BIN / "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
        *("--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"),
        *("--artifacts-destination", str(folder / "artifacts")),
    )
    registry_server = start(*command, cwd=folder)
    wait_until_up(f"{uri}/health", registry_server)
    train_all(uri, folder)
    place = Place(uri, folder)
    stages.move_alias(place.client, "trained", "production", 1)
    client = serve("trained@production", "--tracking-uri", uri, "--workers", "2")
    with under_load(client, 2) as responses:
        os.killpg(registry_server.pid, signal.SIGKILL)
        eventually(lambda: client.get("/model").json()["last_error"] is not None)
        before = len(responses)
        eventually(lambda: len(responses) > before + 50)
        eventually(lambda: metric(client, "serving_registry_response_age_seconds") > 1)
        registry_server = start(*command, cwd=folder)
        wait_until_up(f"{uri}/health", registry_server)
        stages.move_alias(place.client, "trained", "production", EQUAL)
        eventually(lambda: version_of(client) == EQUAL)
    assert {status for status, _, _ in responses} == {200}
    assert client.get("/model").json()["last_error"] is None
    end_group(registry_server)


def test_a_signal_polls_at_once(serve: Serve, model: str, local: Place) -> None:
    client = serve(f"{model}@production", "--poll", "600")
    stages.move_alias(local.client, model, "production", 2)
    time.sleep(1)
    assert version_of(client) == 1
    process_of(client).send_signal(signal.SIGHUP)
    eventually(lambda: version_of(client) == 2)


def test_a_full_disk_keeps_the_old_version_and_the_old_cache(
    serve: Serve, model: str, local: Place, tmp_path: Path
) -> None:
    client = serve(f"{model}@production", "--cache", "cache")
    pid = worker_of(client)
    record = Path("cache", model, "production", "current", "artifact.json")
    assert json.loads(record.read_text())["version"] == 1
    unlimited = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, unlimited[1]))  # as a full disk: nothing grows
    with under_load(client, 1) as responses:
        stages.move_alias(local.client, model, "production", 2)
        eventually(lambda: client.get("/model").json()["candidate"] is not None)
    assert {(status, version) for status, version, _ in responses} == {(200, "1")}
    assert json.loads(record.read_text())["version"] == 1
    resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)
    eventually(lambda: version_of(client) == 2)
    eventually(lambda: json.loads(record.read_text())["version"] == 2)


def test_a_cache_that_cannot_be_written_is_reported(
    serve: Serve, model: str, local: Place, tmp_path: Path
) -> None:
    client = serve(f"{model}@production", "--cache", "cache")
    shutil.rmtree("cache")
    Path("cache").write_text("a file where the folder was")
    stages.move_alias(local.client, model, "production", 2)
    eventually(lambda: "cache_error" in client.get("/model").json())
    assert version_of(client) == 2
