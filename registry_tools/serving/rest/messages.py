"""Requests and replies of HTTP, on bare ASGI: what the protocols share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from registry_tools.inference.decoder import parse_json as parse_json
from registry_tools.inference.predictor import Predictor
from registry_tools.serving.errors import Headers

Receive = Callable[[], Awaitable[dict[str, Any]]]
JSON = (b"content-type", b"application/json")


@dataclass(slots=True)  # not frozen: that would cost half a microsecond a request
class Reply:
    """The response to a request."""

    body: bytes
    status: int = 200
    headers: Sequence[tuple[bytes, bytes]] = (JSON,)


class ClientDisconnected(Exception):
    """The client closed the connection before the response."""


class Request:
    """One request in flight."""

    # What most requests leave as it is stands here and not in each of them.
    body = b""
    id = ""
    task: asyncio.Task[Any] | None = None
    expired = False
    reading = True  # its body is not there yet
    reserved = 0  # bytes of a large body that count against the budget
    rows = 0
    version = ""
    version_headers: Headers = ()  # of the version that predicts for it

    def __init__(self, scope: dict[str, Any], receive: Receive) -> None:
        self.began = time.perf_counter()
        self.scope = scope
        self.receive = receive
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])

    def assign(self, predictor: Predictor) -> Predictor:
        """Name the version that predicts for this request in its headers and metrics."""
        self.version_headers = predictor.headers
        self.version = predictor.label
        return predictor

    @property
    def client(self) -> str:
        """The address that it comes from."""
        client = self.scope.get("client")
        return str(client[0]) if client else ""
