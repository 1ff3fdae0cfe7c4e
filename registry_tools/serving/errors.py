"""Errors of one request, whatever its transport."""

from __future__ import annotations

from collections.abc import Sequence

Headers = Sequence[tuple[bytes, bytes]]

RETRY_LATER: Headers = [(b"retry-after", b"1")]


class RequestRefused(Exception):
    """A request that the server refuses; `status` is an HTTP status, which gRPC maps to its own."""

    def __init__(self, status: int, message: str, headers: Headers = ()) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers
