"""Requests and replies over HTTP, on bare ASGI, for all protocols."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from registry_tools.inference.decoder import parse_json as parse_json
from registry_tools.inference.predictor import Predictor
from registry_tools.serving.engine.request_steps import RequestSteps
from registry_tools.serving.errors import Headers

Receive = Callable[[], Awaitable[dict[str, Any]]]
# A body larger than this, in bytes, counts against the limit of all bodies together.
SMALL_BODY = 1 << 16
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

    # Defaults of most requests: class attributes, because setting them costs time.
    body = b""
    id = ""
    task: asyncio.Task[Any] | None = None
    expired = False
    reading = True  # its body is not there yet
    reserved = 0  # bytes of a large body that count against the budget
    rows = 0
    steps: RequestSteps | None = None  # of a request that is traced
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
    def announced_size(self) -> int:
        """The bytes of its body as its head says; 0 if it does not."""
        return int(self.headers.get(b"content-length", b"0")[:20])

    @property
    def has_unread_body(self) -> bool:
        """Whether the client sends, or has sent, a body that was not read to its end."""
        return self.reading and (self.announced_size > 0 or b"transfer-encoding" in self.headers)

    @property
    def has_small_body(self) -> bool:
        """Whether its body is small, and comes without leave: the connection can stay open for it."""
        return 0 < self.announced_size <= SMALL_BODY and b"expect" not in self.headers

    @property
    def client(self) -> str:
        """The address that it comes from."""
        client = self.scope.get("client")
        return str(client[0]) if client else ""
