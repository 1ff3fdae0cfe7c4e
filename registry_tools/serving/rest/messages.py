"""HTTP requests and replies on bare ASGI, for all protocols."""

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
# Bytes; the server limits the total size of all bodies larger than this.
SMALL_BODY = 1 << 16
JSON = (b"content-type", b"application/json")


@dataclass(slots=True)  # not frozen, which would cost half a microsecond per request
class Reply:
    """The response to a request."""

    body: bytes
    status: int = 200
    headers: Sequence[tuple[bytes, bytes]] = (JSON,)


class ClientDisconnected(Exception):
    """The client closed the connection before the response."""


class Request:
    """One request in flight."""

    # The usual values, as class attributes, because setting instance attributes costs time.
    body = b""
    id = ""
    task: asyncio.Task[Any] | None = None
    expired = False
    reading = True  # the body is not complete yet
    reserved = 0  # the reserved bytes of a large body
    rows = 0
    steps: RequestSteps | None = None  # only if the request is traced
    version = ""
    version_headers: Headers = ()  # the headers that name the version of the predictions

    def __init__(self, scope: dict[str, Any], receive: Receive) -> None:
        self.began = time.perf_counter()
        self.scope = scope
        self.receive = receive
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])

    def assign(self, predictor: Predictor) -> Predictor:
        """Record the predictor of this request for its headers and metrics, and return it."""
        self.version_headers = predictor.headers
        self.version = predictor.label
        return predictor

    @property
    def announced_size(self) -> int:
        """The number of bytes in `Content-Length`; 0 without that header."""
        return int(self.headers.get(b"content-length", b"0")[:20])

    @property
    def has_unread_body(self) -> bool:
        """Whether the client sends, or has sent, a body that was not read completely."""
        return self.reading and (self.announced_size > 0 or b"transfer-encoding" in self.headers)

    @property
    def has_small_body(self) -> bool:
        """Whether the body is small and sent without `Expect`, so that the connection can stay open."""
        return 0 < self.announced_size <= SMALL_BODY and b"expect" not in self.headers

    @property
    def client(self) -> str:
        """The address of the client."""
        client = self.scope.get("client")
        return str(client[0]) if client else ""
