"""Requests that are refused by their headers, and clients that disconnect: over real sockets."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.constants import IRIS_COLUMNS, IRIS_ROW
from tests.support.servers import eventually
from tests.support.serving import Serve

BODY = json.dumps({"features": IRIS_ROW}).encode()
PREDICT = f"POST /predict HTTP/1.1\r\nContent-Length: {len(BODY)}\r\n".encode()


def connect(client: httpx.Client) -> socket.socket:
    return socket.create_connection((client.base_url.host, client.base_url.port), timeout=120)


def responses(client: httpx.Client, message: bytes) -> bytes:
    """Return all that the server sends for a message until one of both closes the connection."""
    with connect(client) as connection:
        connection.sendall(message)
        connection.shutdown(socket.SHUT_WR)
        return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    received = b""
    while part := connection.recv(1 << 16):
        received += part
    return received


def status_of(client: httpx.Client, *headers: str) -> int:
    """Return the status of a prediction with these headers, and none that httpx adds."""
    head = PREDICT + "".join(f"{header}\r\n" for header in headers).encode()
    return int(responses(client, head + b"Connection: close\r\n\r\n" + BODY).split()[1])


def requests_by_code(client: httpx.Client) -> dict[str, float]:
    counts: dict[str, float] = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            if sample.name == "serving_request_seconds_count":
                code = sample.labels["code"]
                counts[code] = counts.get(code, 0) + sample.value
    return counts


def reset(connection: socket.socket) -> None:
    """Close a connection as a killed client does: with a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.mark.parametrize("leave", [socket.socket.close, reset])
def test_a_client_that_leaves_within_a_body_is_no_error_of_the_server(
    reader: httpx.Client, leave: Callable[[socket.socket], None]
) -> None:
    before = requests_by_code(reader)
    connection = connect(reader)
    connection.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{")
    eventually(lambda: reader.get("/ready").status_code == 200)  # the head was read by then
    leave(connection)
    eventually(lambda: requests_by_code(reader).get("499", 0) == before.get("499", 0) + 1)
    assert requests_by_code(reader).get("500", 0) == before.get("500", 0)


@pytest.mark.slow
def test_a_connection_closed_before_pipelined_responses_leaves_no_traceback(
    client: httpx.Client, tmp_path: Path
) -> None:
    large = {"dataframe_split": {"columns": IRIS_COLUMNS, "data": [IRIS_ROW] * 50_000}}
    body = json.dumps(large).encode()
    head = f"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    first = head.encode() + b"Content-Type: application/json\r\n\r\n" + body
    connection = connect(client)
    connection.sendall(first + b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n")
    reset(connection)
    eventually(lambda: sum(requests_by_code(client).values()) >= 3)
    log = next(tmp_path.glob("process-*.log")).read_text()
    assert "Traceback" not in log
    assert "ASGI" not in log


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (["Host: localhost"], 200),
        (["Host: LOCALHOST.:80"], 200),
        (["Host: [::1]:5001"], 200),
        ([], 400),
        (["Host:"], 400),
        (["Host: evil.example"], 400),
        (["Host: localhost.evil.example"], 400),
        (["Host: localhost@evil.example"], 400),
        (["Host: 192.168.0.7"], 400),  # an address that this server does not listen on
        (["Host: localhost", "Host: localhost"], 400),
        (["Host: localhost", "Content-Encoding: gzip"], 415),
        (["Host: localhost", "Content-Encoding: identity"], 200),
        (["Host: localhost", "Content-Type: text/csv", "Content-Type: application/json"], 400),
    ],
)
def test_a_request_is_judged_by_its_headers(reader: httpx.Client, headers: list[str], status: int) -> None:
    assert status_of(reader, *headers) == status


def test_http_1_0_has_no_host(reader: httpx.Client) -> None:
    assert b" 200 " in responses(reader, b"GET /ready HTTP/1.0\r\n\r\n").splitlines()[0]


@pytest.mark.parametrize(
    ("coding", "wanted"), [("gzip, chunked", b"501"), ("gzip\r\nTransfer-Encoding: chunked", b"400")]
)
def test_an_unknown_transfer_coding_is_refused(reader: httpx.Client, coding: str, wanted: bytes) -> None:
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: {coding}\r\n\r\n"
    chunk = f"{len(BODY):x}\r\n".encode() + BODY + b"\r\n0\r\n\r\n"
    assert responses(reader, head.encode() + chunk).split()[1] == wanted
    head = "POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert responses(reader, head.encode() + chunk).split()[1] == b"200"


def test_a_client_that_waits_for_leave_gets_it_only_for_a_body_that_is_taken(reader: httpx.Client) -> None:
    expect = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: "
    with connect(reader) as connection:
        connection.sendall(expect + b"%d\r\n\r\n" % (1 << 30))
        refused = connection.recv(1000)
    assert refused.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in refused
    with connect(reader) as connection:
        connection.sendall(expect + b"%d\r\n\r\n" % len(BODY))
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(BODY)
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("path", "status", "size"),
    [("/predict", 413, 96 << 20), ("/nowhere", 404, 96 << 20), ("/health", 405, 1 << 17)],
)
def test_a_client_that_sends_all_before_it_reads_receives_the_refusal(
    reader: httpx.Client, path: str, status: int, size: int
) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n"
    with connect(reader) as connection:
        connection.sendall(head.encode())
        for _ in range(size >> 17):
            connection.sendall(b" " * (1 << 17))
        assert read_all(connection).split()[1] == b"%d" % status


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"forwarded": "for=1.2.3.4"},
        {"x-forwarded-for": "1.2.3.4"},
        {"x-forwarded-proto": "https"},
        {"x-real-ip": "1.2.3.4"},
        {"via": "1.1 proxy"},
        {"true-client-ip": "1.2.3.4"},
        {"x-envoy-external-address": "1.2.3.4"},
    ],
)
def test_a_page_of_another_server_and_a_proxy_may_not_refresh(
    reader: httpx.Client, headers: dict[str, str]
) -> None:
    assert reader.post("/-/refresh", headers=headers).status_code == 403


def test_the_page_of_this_server_may_refresh(reader: httpx.Client) -> None:
    own = {"origin": str(reader.base_url).rstrip("/"), "sec-fetch-site": "same-origin"}
    assert reader.post("/-/refresh", headers=own).status_code == 200


def test_no_page_may_frame_the_documentation_or_guess_its_type(reader: httpx.Client) -> None:
    headers = reader.get("/docs").headers
    for directive in ("frame-ancestors", "base-uri", "form-action", "default-src"):
        assert f"{directive} 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    refused = reader.post("/predict", json={"features": ["<b>"]})
    assert (refused.status_code, refused.headers["x-content-type-options"]) == (400, "nosniff")


@pytest.mark.slow
def test_allowed_hosts_are_served(serve: Serve, model: str) -> None:
    client = serve(f"{model}/1", "--host", "0.0.0.0", "--allowed-hosts", "iris.example, *.models.example")
    for host, status in (
        ("iris.example:5001", 200),
        ("a.models.example", 200),
        ("192.168.0.7:5001", 200),  # every address is this server's own
        ("[fe80::1]", 200),
        ("localhost", 200),
        ("models.example", 400),
        ("evil.example", 400),
    ):
        assert status_of(client, f"Host: {host}") == status, host
