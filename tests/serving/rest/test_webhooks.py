"""Webhooks of MLflow: signed ones make the server poll its stage at once, and all others change nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from mlflow.webhooks.constants import (
    WEBHOOK_DELIVERY_ID_HEADER,
    WEBHOOK_SIGNATURE_HEADER,
    WEBHOOK_TIMESTAMP_HEADER,
)
from mlflow.webhooks.delivery import _generate_hmac_signature

from registry_tools.mlflow_store import stages
from registry_tools.policy.tag_names import DIGEST_TAG
from tests.support.constants import IRIS_ROW, LONG
from tests.support.registries import EQUAL, GOOD, POOR, Place
from tests.support.servers import BIN, end_group, eventually, free_port, wait_until_up
from tests.support.serving import Serve, server_processes, versions

SECRET, NEXT_SECRET = "the-secret", "the-next-secret"
MODEL = "trained"
NEVER = ("--poll", "600")  # the server polls only when it starts and when it is asked to


def content(name: str = MODEL, alias: str = "production", entity: str = "model_version_alias") -> str:
    """Return the body of a webhook as MLflow sends it."""
    data = {"name": name, "alias": alias, "version": "2"}
    return json.dumps({"entity": entity, "action": "created", "timestamp": "2026-11-28", "data": data})


def signed(body: str, secret: str = SECRET, age: float = 0, sent_at: str | None = None) -> dict[str, Any]:
    """Return the body and headers of a webhook, signed by MLflow's own function."""
    delivery, sent_at = str(uuid.uuid4()), sent_at or str(int(time.time() - age))
    headers = {
        WEBHOOK_DELIVERY_ID_HEADER: delivery,
        WEBHOOK_TIMESTAMP_HEADER: sent_at,
        WEBHOOK_SIGNATURE_HEADER: _generate_hmac_signature(secret, delivery, sent_at, body),
    }
    return {"content": body, "headers": headers}


def without(header: str, webhook: dict[str, Any]) -> dict[str, Any]:
    headers = {name: value for name, value in webhook["headers"].items() if name != header}
    return {**webhook, "headers": headers}


def send(client: httpx.Client, webhook: dict[str, Any]) -> httpx.Response:
    """Send a webhook without the API key of the client, as MLflow does."""
    return httpx.post(client.base_url.join("/webhooks/mlflow"), **webhook, timeout=120)


def write_secrets(folder: Path) -> str:
    (folder / "secrets").write_text(f"# of both MLflow servers\n{SECRET}\n{NEXT_SECRET}\n")
    return str(folder / "secrets")


@pytest.fixture(scope="module")
def guarded(sqlite_place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client with the key of a server that polls when it starts and after webhooks."""
    folder = tmp_path_factory.mktemp("guarded")
    stages.move_alias(sqlite_place.client, MODEL, "production", 1)
    (folder / "keys").write_text("the-key\n")
    port = free_port()
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(BIN / "registry-tools", "serve", f"{MODEL}@production", "--port", str(port), *NEVER),
                *("--webhook-secret-file", write_secrets(folder), "--api-key-file", folder / "keys"),
                *("--tracking-uri", sqlite_place.uri),
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    address, headers = f"http://127.0.0.1:{port}", {"x-api-key": "the-key"}
    try:
        wait_until_up(f"{address}/ready", process)
        with httpx.Client(base_url=address, headers=headers, timeout=120) as client:
            yield client
    finally:
        end_group(process)


def last_poll(client: httpx.Client) -> str:
    return str(client.get("/model").json()["last_poll"])


ALIAS = {"entity": "model_version_alias", "action": "created"}


@pytest.mark.parametrize(
    ("make", "status", "message"),
    [
        pytest.param(lambda: signed(content(), "another-secret"), 401, "signature", id="another secret"),
        pytest.param(lambda: signed(content(), "the-key"), 401, "signature", id="a key of a client"),
        pytest.param(
            lambda: {**signed(content()), "content": content(alias="staging")},
            401,
            "signature",
            id="a changed body",
        ),
        pytest.param(
            lambda: without(WEBHOOK_SIGNATURE_HEADER, signed(content())), 401, "signature", id="no signature"
        ),
        pytest.param(
            lambda: without(WEBHOOK_TIMESTAMP_HEADER, signed(content())), 401, "signature", id="no time"
        ),
        pytest.param(
            lambda: without(WEBHOOK_DELIVERY_ID_HEADER, signed(content())), 401, "signature", id="no id"
        ),
        pytest.param(lambda: {"content": content()}, 401, "signature", id="no headers"),
        pytest.param(lambda: signed(content(), age=330), 401, "not sent within 300 s", id="five minutes old"),
        pytest.param(
            lambda: signed(content(), age=-330), 401, "not sent within 300 s", id="five minutes early"
        ),
        pytest.param(
            lambda: signed(content(), sent_at="yesterday"),
            401,
            "not sent within 300 s",
            id="no number as time",
        ),
        pytest.param(
            lambda: signed(content() + " " * (1 << 16)), 413, "larger than 65536 bytes", id="too large"
        ),
        pytest.param(lambda: signed("{"), 400, "JSON", id="no JSON"),
        pytest.param(lambda: signed(""), 400, "JSON", id="empty"),
        pytest.param(lambda: signed("[1]"), 400, "not a webhook", id="a list"),
        pytest.param(lambda: signed("{}"), 400, "not a webhook", id="an empty object"),
        pytest.param(lambda: signed(json.dumps(ALIAS)), 400, "not a webhook", id="no data"),
        pytest.param(
            lambda: signed(json.dumps({**ALIAS, "data": {"name": 1, "alias": []}})),
            400,
            "not a webhook",
            id="data of other types",
        ),
        pytest.param(lambda: signed(content(name="another")), 200, "ignored", id="another model"),
        pytest.param(lambda: signed(content(alias="staging")), 200, "ignored", id="another stage"),
        pytest.param(lambda: signed(content(entity="model_version_tag")), 200, "ignored", id="another event"),
    ],
)
def test_a_webhook_that_is_forged_old_malformed_or_of_no_concern_changes_nothing(
    guarded: httpx.Client, make: Callable[[], dict[str, Any]], status: int, message: str
) -> None:
    before = last_poll(guarded)
    reply = send(guarded, make())
    assert (reply.status_code, len(reply.text.splitlines())) == (status, 1), reply.text
    assert message in reply.text
    assert last_poll(guarded) == before


@pytest.mark.parametrize("secret", [SECRET, NEXT_SECRET])
@pytest.mark.parametrize("alias", ["production", "Production"])
@pytest.mark.parametrize("age", [0, 200, -200])
def test_a_webhook_of_the_stage_polls_the_registry_and_needs_no_key(
    guarded: httpx.Client, secret: str, alias: str, age: float
) -> None:
    assert httpx.get(guarded.base_url.join("/model")).status_code == 401
    before = last_poll(guarded)
    assert send(guarded, signed(content(alias=alias), secret, age)).status_code == 202
    eventually(lambda: last_poll(guarded) > before)


def test_without_a_secret_file_the_server_takes_no_webhooks(reader: httpx.Client) -> None:
    reply = send(reader, signed(content()))
    assert reply.status_code == 404
    assert "--webhook-secret-file" in reply.json()["error"]


@LONG
@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_webhook_reaches_every_worker_and_the_shadow(
    serve: Serve, model: str, local: Place, tmp_path: Path, workers: str
) -> None:
    stages.move_alias(local.client, model, "staging", 1)
    options = ("--workers", workers, "--shadow", f"{model}@staging", *NEVER)
    client = serve(f"{model}@production", *options, "--webhook-secret-file", write_secrets(tmp_path))
    eventually(lambda: len(server_processes(client)) == int(workers) + 1)
    eventually(lambda: client.get("/model").json()["shadow"].get("version") == 1)
    for stage in ("production", "staging"):
        stages.move_alias(local.client, model, stage, 2)
        assert send(client, signed(content(model, stage))).status_code == 202
    eventually(lambda: versions(client) == {2})
    eventually(lambda: client.get("/model").json()["shadow"].get("version") == 2)


@pytest.mark.slow
def test_a_poll_finds_the_version_of_a_lost_or_late_webhook(
    serve: Serve, model: str, local: Place, tmp_path: Path
) -> None:
    client = serve(f"{model}@production", "--webhook-secret-file", write_secrets(tmp_path))
    stages.move_alias(local.client, model, "production", 2)
    assert send(client, signed(content(model), age=330)).status_code == 401
    eventually(lambda: client.get("/model").json()["version"] == 2)


@pytest.mark.slow
def test_a_replayed_webhook_does_not_retry_a_version_that_failed(
    serve: Serve, local: Place, tmp_path: Path
) -> None:
    name = local.model(GOOD, POOR)
    local.client.set_model_version_tag(name, "2", DIGEST_TAG, "0" * 64)
    stages.move_alias(local.client, name, "production", 1)
    client = serve(f"{name}@production", *NEVER, "--webhook-secret-file", write_secrets(tmp_path))
    stages.move_alias(local.client, name, "production", 2)
    webhook = signed(content(name))
    assert send(client, webhook).status_code == 202
    eventually(lambda: client.get("/model").json()["candidate"] is not None)
    before = last_poll(client)
    assert send(client, webhook).status_code == 202
    eventually(lambda: last_poll(client) > before)
    assert client.post("/-/refresh").json()["candidate"]["tries"] == 2  # refreshing retries it
    client.process.send_signal(signal.SIGHUP)  # type: ignore[attr-defined]
    eventually(lambda: client.get("/model").json()["candidate"]["tries"] == 3)


@pytest.fixture
def mlflow_server(
    start: Callable[..., subprocess.Popen[bytes]], local: Place, tmp_path: Path
) -> tuple[Place, subprocess.Popen[bytes], Path]:
    """A real `mlflow server` that may send webhooks to this machine, its process, and its log."""
    shutil.copy(local.files / "mlflow.db", tmp_path)
    port = free_port()
    settings = {
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_WEBHOOK_CACHE_TTL": "0",  # seconds until the server notices a new webhook
    }
    process = start(
        *(BIN / "mlflow", "server", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db"),
        env={**os.environ, **settings},
    )
    wait_until_up(f"http://127.0.0.1:{port}/health", process)
    return Place(f"http://127.0.0.1:{port}", local.files), process, tmp_path / "process-0.log"


def served_version(client: httpx.Client) -> str:
    return client.post("/predict", json={"features": IRIS_ROW}).headers["x-model-version"]


@pytest.mark.slow
def test_a_webhook_of_a_real_mlflow_server_brings_a_promotion_to_traffic(
    serve: Serve, mlflow_server: tuple[Place, subprocess.Popen[bytes], Path], tmp_path: Path
) -> None:
    place, _, _ = mlflow_server
    name = place.model(GOOD, EQUAL)
    stages.move_alias(place.client, name, "production", 1)
    options = (*NEVER, "--tracking-uri", place.uri, "--webhook-secret-file", write_secrets(tmp_path))
    client = serve(f"{name}@production", *options)
    webhook = place.client.create_webhook(
        "serving",
        str(client.base_url.join("/webhooks/mlflow")),
        ["model_version_alias.created", "model_version_alias.deleted"],
        secret=SECRET,
    )
    sample = place.client.test_webhook(webhook.webhook_id)  # MLflow's sample names another model
    assert (sample.success, sample.response_status) == (True, 200), sample
    stages.move_alias(place.client, name, "production", 2)
    eventually(lambda: served_version(client) == "2")
    place.client.delete_registered_model_alias(name, "production")
    eventually(lambda: "stage 'production'" in (client.get("/model").json()["last_error"] or ""))
    assert served_version(client) == "2"


@LONG
@pytest.mark.slow
def test_a_burst_of_webhooks_causes_one_poll_after_the_poll_in_progress(
    serve: Serve, mlflow_server: tuple[Place, subprocess.Popen[bytes], Path], tmp_path: Path
) -> None:
    place, registry_process, log = mlflow_server
    name = place.model(GOOD)
    stages.move_alias(place.client, name, "production", 1)
    options = (*NEVER, "--tracking-uri", place.uri, "--webhook-secret-file", write_secrets(tmp_path))
    client = serve(f"{name}@production", *options)

    def polls() -> int:
        return log.read_text().count(
            f"GET /api/2.0/mlflow/registered-models/alias?name={name}&alias=production "
        )

    before, at_start = polls(), last_poll(client)
    assert before > 0
    os.killpg(registry_process.pid, signal.SIGSTOP)  # the next poll stays in progress
    try:
        assert send(client, signed(content(name))).status_code == 202
        eventually(lambda: last_poll(client) > at_start)
        with ThreadPoolExecutor(8) as pool:
            burst = list(pool.map(lambda _: send(client, signed(content(name))), range(40)))
        assert {reply.status_code for reply in burst} == {202}
    finally:
        os.killpg(registry_process.pid, signal.SIGCONT)
    eventually(lambda: polls() == before + 2)
    asked_last = last_poll(client)
    assert client.post("/-/refresh").json()["last_poll"] > asked_last
    assert polls() == before + 3


def test_a_secret_file_needs_a_stage_to_follow(tmp_path: Path) -> None:
    done = subprocess.run(
        [BIN / "registry-tools", "serve", "iris/3", "--webhook-secret-file", write_secrets(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert "needs a stage to follow, and iris/3 is one version" in done.stderr
