"""What goes wrong around a server, and in it: real processes, killed and starved and misled."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import skops.io
import tritonclient.grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sklearn.linear_model import LogisticRegression, SGDOneClassSVM
from tritonclient.utils import InferenceServerException

from registry_tools import load_model
from registry_tools.mlflow_store import registry, stages
from tests.support.constants import IRIS_COLUMNS, IRIS_ROW
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
        local.client.set_model_version_tag(name, str(version), registry.DIGEST_TAG, "0" * 64)
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
    reply = httpx.post(client.base_url.join("/invocations"), json=records, timeout=30)
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
        eventually(lambda: client.get("/model").json()["last_error"] is not None, seconds=60)
        before = len(responses)
        eventually(lambda: len(responses) > before + 50)
        eventually(lambda: metric(client, "serving_registry_response_age_seconds") > 1)
        registry_server = start(*command, cwd=folder)
        wait_until_up(f"{uri}/health", registry_server)
        stages.move_alias(place.client, "trained", "production", EQUAL)
        eventually(lambda: version_of(client) == EQUAL, seconds=60)
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


def test_health_responds_while_a_large_request_runs(client: httpx.Client) -> None:
    rows = [IRIS_ROW] * 200_000
    body = json.dumps({"dataframe_split": {"columns": IRIS_COLUMNS, "data": rows}})
    headers = {"content-type": "application/json"}
    waits, lasted = [], []

    def large() -> int:
        began = time.perf_counter()
        reply = httpx.post(client.base_url.join("/invocations"), content=body, headers=headers, timeout=60)
        lasted.append(time.perf_counter() - began)
        assert len(reply.json()["predictions"]) == len(rows)
        return reply.status_code

    with ThreadPoolExecutor(1) as pool:
        for _ in range(3):
            posted = pool.submit(large)
            while not posted.done():
                began = time.perf_counter()
                assert client.get("/health").status_code == 200
                waits.append(time.perf_counter() - began)
                time.sleep(0.005)
            assert posted.result() == 200
    waits.sort()
    assert waits[int(len(waits) * 0.95)] < min(lasted) / 2


def test_what_takes_too_long_is_given_up(serve: Serve, local: Place) -> None:
    name = local.model(EQUAL)  # nearest neighbours: slow with many rows
    client = serve(f"{name}/1", "--timeout", "1s", "--max-body", "64", "--max-rows", "2000000")
    rows = {"dataframe_split": {"columns": IRIS_COLUMNS, "data": [IRIS_ROW] * 1_500_000}}
    reply = client.post("/invocations", json=rows)
    assert reply.status_code == 504, reply.text[:100]
    eventually(lambda: client.post("/predict", json={"features": IRIS_ROW}).status_code == 200)


def test_more_than_may_wait_are_refused_and_half_a_body_is_given_up(serve: Serve, model: str) -> None:
    client = serve(f"{model}@production", "--timeout", "4", "--queue", "1")
    with socket.create_connection((client.base_url.host, client.base_url.port), 10) as half:
        half.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{")
        full: list[httpx.Response] = []

        def refused() -> bool:
            full.append(client.post("/predict", json={"features": IRIS_ROW}))
            return full[-1].status_code == 503

        eventually(refused, seconds=3)
        assert full[-1].headers["retry-after"] == "1"
        assert client.get("/health").status_code == 200
        assert b" 408 " in half.recv(1000)
    eventually(lambda: client.post("/predict", json={"features": IRIS_ROW}).status_code == 200)


def test_idle_and_half_sent_connections_are_closed(serve: Serve, model: str) -> None:
    client = serve(f"{model}@production", "--timeout", "1")
    address = (client.base_url.host, client.base_url.port)
    for first in (b"", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"):
        for message in (b"GET /hea", b"POST /predict HTTP/1.1\r\nHost: localhost\r\nX-"):
            with socket.create_connection(address, timeout=60) as connection:
                connection.sendall(first)
                assert not first or b" 200 " in connection.recv(1000)
                connection.sendall(message)
                while connection.recv(1000):
                    pass
    with socket.create_connection(address, timeout=60) as connection:
        assert connection.recv(1000) == b""
    with socket.create_connection(address, timeout=60) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n")
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 1 << 24:
                sent += connection.send(b"X-A: " + b"a" * 9999)
        assert sent < 1 << 23


def test_a_client_that_does_not_read_is_hung_up_on(serve: Serve, model: str) -> None:
    client = serve(f"{model}@production", "--timeout", "2")
    body = json.dumps(
        {"dataframe_split": {"columns": IRIS_COLUMNS, "data": [IRIS_ROW] * 100_000}}
        | {"params": {"method": "predict_proba"}}
    ).encode()
    pid = worker_of(client)
    before = descriptors(pid)
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect((client.base_url.host, client.base_url.port))
        head = f"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        deaf.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
        eventually(lambda: descriptors(pid) > before)
        eventually(lambda: descriptors(pid) <= before)
    assert client.get("/health").status_code == 200


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def generated(rng: random.Random) -> tuple[str, str, dict[str, str], bytes]:
    """Return a request that is good, odd, broken or huge."""
    path = rng.choice(
        ["/predict", "/invocations", "/v2/models/trained/infer", "/v2/models/x", "/", "/docs", "//"]
    )
    method = rng.choice(["POST", "POST", "POST", "POST", "GET", "PUT", "HEAD"])
    kinds = ["application/json", "text/csv", "application/vnd.apache.parquet", "text/plain", "?"]
    headers = {"content-type": rng.choice(kinds)}
    if not rng.randrange(5):
        headers["inference-header-content-length"] = rng.choice(["0", "-1", "x", "20", "9" * 30])
    if not rng.randrange(9):
        headers["x-request-id"] = rng.choice(["", "a b", "x" * 5000, "é\x7f"])
    cell = rng.choice([1, 1.5, None, "x", [], {}, True, 1e308, 10**30, 10**400, "9" * 400])
    body = json.dumps(
        rng.choice(
            [
                {"features": [cell] * rng.randrange(6)},
                {"dataframe_split": {"columns": IRIS_COLUMNS, "data": [[cell] * 4]}},
                {"dataframe_split": {"columns": [cell], "data": cell}},
                {"dataframe_records": [{IRIS_COLUMNS[0]: cell}]},
                {"inputs": cell, "instances": cell},
                {"inputs": [{"name": "x", "shape": [cell], "datatype": "FP64", "data": [cell]}]},
                {"inputs": [], "params": {"method": cell}},
                cell,
            ]
        )
    ).encode()
    change = rng.randrange(8)
    if change == 0:
        body = body[: rng.randrange(len(body) + 1)]
    elif change == 1:
        body = rng.randbytes(rng.randrange(300))
    elif change == 2:
        body = rng.choice([b"[", b'{"a":', b'{"inputs":[']) * rng.choice([10, 1000, 50_000])
    elif change == 3:
        body += rng.randbytes(rng.randrange(60))
    return method, path, headers, body


def test_no_request_causes_a_server_error_or_leaves_files(serve: Serve) -> None:
    client = serve("trained/1", "--timeout", "2", "--max-body", "1")
    pid = worker_of(client)
    address = (client.base_url.host, client.base_url.port)
    rng = random.Random(4)

    def send(times: int) -> None:
        for number in range(times):
            method, path, headers, body = generated(rng)
            raw = {name: value.encode("latin-1") for name, value in headers.items()}
            try:
                reply = client.request(method, path, headers=raw, content=body)
            except httpx.TransportError:
                continue  # what is no HTTP ends the connection
            assert reply.status_code < 500, (method, path, headers, body[:200], reply.text)
            assert "Traceback" not in reply.text
            if number % 500 == 0:
                with contextlib.suppress(OSError), socket.create_connection(address) as junk:
                    junk.sendall(rng.choice([b"\x00" * 100, b"GET\r\n\r\n", b"POST / HTTP/9\r\n\r\n"]))
        huge = [b"x" * (3 << 20), b'{"features": [' + b"1," * (1 << 20)]
        for body in huge:
            with contextlib.suppress(httpx.TransportError):
                assert client.post("/predict", content=body).status_code == 413
        # One connection is open from here on.
        assert client.post("/predict", json={"features": IRIS_ROW}).status_code == 200
        time.sleep(0.5)

    send(4000)  # MLflow and pandas are imported by then
    before = memory(pid), descriptors(pid)
    send(16_000)
    eventually(lambda: descriptors(pid) <= before[1])
    assert memory(pid) < before[0] + (24 << 20)


def certificate(folder: Path) -> tuple[Path, Path]:
    """Write a certificate for localhost that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = folder / "cert.pem", folder / "key.pem"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return files


@pytest.mark.parametrize("workers", ["1", "2"])
def test_it_speaks_tls_and_asks_for_a_key_over_http_and_grpc(
    local: Place, start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path, workers: str
) -> None:
    cert, key = certificate(tmp_path)
    both = tmp_path / "both.pem"
    both.write_bytes(key.read_bytes() + cert.read_bytes())
    (tmp_path / "keys").write_text("the-key\n")
    port, grpc_port = free_port(), free_port()
    process = start(
        *(BIN / "registry-tools", "serve", "trained/1", "--port", str(port)),
        *("--grpc-port", str(grpc_port), "--ssl-certfile", both, "--workers", workers),
        *("--api-key-file", tmp_path / "keys"),
    )
    trust = ssl.create_default_context(cafile=str(cert))
    bearer = {"authorization": "Bearer the-key"}
    with httpx.Client(base_url=f"https://localhost:{port}", verify=trust) as client:

        def responds() -> bool:
            assert process.poll() is None
            try:
                reply = client.post("/predict", json={"features": IRIS_ROW}, headers=bearer)
                return reply.status_code == 200
            except httpx.TransportError:
                return False

        eventually(responds, seconds=60)
        assert client.post("/predict", json={"features": IRIS_ROW}).status_code == 401
        assert client.get("/docs").status_code == 200
        assert client.get("/openapi.json").status_code == 401
    with tritonclient.grpc.InferenceServerClient(
        f"localhost:{grpc_port}", ssl=True, root_certificates=str(cert)
    ) as stub:
        rows = tritonclient.grpc.InferInput("rows", [1, 4], "FP64")
        rows.set_data_from_numpy(np.array([IRIS_ROW]))
        assert stub.is_server_ready()
        result = stub.infer("trained", [rows], headers=bearer)
        assert result.as_numpy("predict").tolist() == [1]
        with pytest.raises(InferenceServerException, match="a key is needed"):
            stub.infer("trained", [rows])


def test_a_certificate_without_its_key_is_an_error_of_one_line(local: Place, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    encrypted = tmp_path / "encrypted.pem"
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    encrypted.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"a password"),
        )
    )
    for options, message in (
        (("--ssl-certfile", cert, "--ssl-keyfile", encrypted), f"{encrypted}: the key is encrypted"),
        (("--ssl-certfile", cert), "no certificate with its key"),
        (("--ssl-certfile", "nowhere.pem"), "No such file"),
        (("--ssl-keyfile", cert), "goes with --ssl-certfile"),
    ):
        done = subprocess.run(
            [BIN / "registry-tools", "serve", "trained/1", *options],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 1
        assert message in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
