"""The private parts of uvicorn exist in the version that they were read in."""

from __future__ import annotations

import contextlib
import json
import socket
from pathlib import Path

import pytest
import uvicorn

from registry_tools.serving import uvicorn_internals
from tests.support.constants import IRIS_COLUMNS, IRIS_ROW
from tests.support.serving import Serve


def test_uvicorn_is_the_version_whose_private_parts_are_used() -> None:
    reason = f"read uvicorn_internals.py against uvicorn {uvicorn.__version__}, and then name it there"
    assert uvicorn.__version__ == uvicorn_internals.VERSION, reason


@pytest.mark.slow
def test_a_client_that_closes_its_side_gets_its_response(serve: Serve, model: str) -> None:
    client = serve(f"{model}@production")
    address = (client.base_url.host, client.base_url.port)
    row = dict(zip(IRIS_COLUMNS, map(str, IRIS_ROW), strict=True))
    body = json.dumps({"dataframe_records": [row]}).encode()  # text as numbers is predicted in a thread
    head = f"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    message = head.encode() + b"Content-Type: application/json\r\n\r\n" + body
    for sent, response in ((message, b"HTTP/1.1 200 "), (message[:-1], b"")):
        with socket.create_connection(address, 30) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(1000)[:13] == response


@pytest.mark.slow
def test_trailers_are_no_headers_and_have_a_limit(serve: Serve, model: str, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("the-key\n")
    client = serve(f"{model}@production", "--api-key-file", str(tmp_path / "keys"))
    address = (client.base_url.host, client.base_url.port)
    head = b"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    body = b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
    with socket.create_connection(address, 30) as connection:
        connection.sendall(head + body + b"X-Api-Key: the-key\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 401 ")
    with socket.create_connection(address, 30) as connection:
        connection.sendall(head + body)
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 1 << 25:
                sent += connection.send(b"X-A: " + b"a" * 9999 + b"\r\n")
        assert sent < 1 << 23
