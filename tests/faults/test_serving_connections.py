"""Clients that send too much, too slowly or nothing, and clients of TLS: real connections."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tritonclient.utils import InferenceServerException

from tests.support.constants import IRIS_COLUMNS, IRIS_ROW, LONG
from tests.support.registries import EQUAL, Place
from tests.support.servers import BIN, eventually, free_port, memory
from tests.support.serving import Serve, worker_of

pytestmark = pytest.mark.slow


def test_health_responds_while_a_large_request_runs(client: httpx.Client) -> None:
    rows = [IRIS_ROW] * 200_000
    body = json.dumps({"dataframe_split": {"columns": IRIS_COLUMNS, "data": rows}})
    headers = {"content-type": "application/json"}
    shares = []

    def large() -> float:
        began = time.perf_counter()
        reply = httpx.post(client.base_url.join("/invocations"), content=body, headers=headers, timeout=120)
        lasted = time.perf_counter() - began
        assert len(reply.json()["predictions"]) == len(rows)
        return lasted

    with ThreadPoolExecutor(1) as pool:
        for _ in range(5):
            posted, longest = pool.submit(large), 0.0
            while not posted.done():
                began = time.perf_counter()
                assert client.get("/health").status_code == 200
                longest = max(longest, time.perf_counter() - began)
                time.sleep(0.005)
            shares.append(longest / posted.result())
    # A blocked server would let a request wait for most of each of them.
    assert min(shares) < 0.5


def test_what_takes_too_long_is_given_up(serve: Serve, local: Place) -> None:
    name = local.model(EQUAL)  # nearest neighbours: slow with many rows
    client = serve(f"{name}/1", "--timeout", "1s", "--max-body", "64", "--max-rows", "2000000")
    rows = {"dataframe_split": {"columns": IRIS_COLUMNS, "data": [IRIS_ROW] * 1_500_000}}
    reply = client.post("/invocations", json=rows)
    assert reply.status_code == 504, reply.text[:100]
    eventually(lambda: client.post("/predict", json={"features": IRIS_ROW}).status_code == 200)


@LONG
def test_more_than_may_wait_are_refused_and_half_a_body_is_given_up(serve: Serve, model: str) -> None:
    client = serve(f"{model}@production", "--timeout", "10", "--queue", "1")
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=120) as half:
        half.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{")
        full: list[httpx.Response] = []

        def refused() -> bool:
            full.append(client.post("/predict", json={"features": IRIS_ROW}))
            return full[-1].status_code == 503

        eventually(refused)
        assert full[-1].headers["retry-after"] == "1"
        assert client.get("/health").status_code == 200
        assert b" 408 " in half.recv(1000)
    eventually(lambda: client.post("/predict", json={"features": IRIS_ROW}).status_code == 200)


@LONG
def test_idle_and_half_sent_connections_are_closed(serve: Serve, model: str) -> None:
    client = serve(f"{model}@production", "--timeout", "1")
    address = (client.base_url.host, client.base_url.port)
    for first in (b"", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"):
        for message in (b"GET /hea", b"POST /predict HTTP/1.1\r\nHost: localhost\r\nX-"):
            with socket.create_connection(address, timeout=120) as connection:
                connection.sendall(first)
                assert not first or b" 200 " in connection.recv(1000)
                connection.sendall(message)
                while connection.recv(1000):
                    pass
    with socket.create_connection(address, timeout=120) as connection:
        assert connection.recv(1000) == b""
    with socket.create_connection(address, timeout=120) as connection:
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

        eventually(responds)
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
        (("--ssl-certfile", cert), "the certificate and its key"),
        (("--ssl-certfile", "nowhere.pem"), "No such file"),
        (("--ssl-keyfile", cert), "needs --ssl-certfile"),
    ):
        done = subprocess.run(
            [BIN / "registry-tools", "serve", "trained/1", *options],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 1
        assert message in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
