"""The private parts of uvicorn exist in the version that they were read in."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

import pytest
import uvicorn

from registry_tools.serving import uvicorn_internals
from tests.support.serving import Serve


def test_uvicorn_is_the_version_whose_private_parts_are_used() -> None:
    reason = f"read uvicorn_internals.py against uvicorn {uvicorn.__version__}, and then name it there"
    assert uvicorn.__version__ == uvicorn_internals.VERSION, reason


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
