"""The private parts of uvicorn that the server uses, with the reason for each.

uvicorn has no public option for them. A test pins the version of uvicorn that this module was written
for. Before you change the pin, compare this module with the new version.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

VERSION = "0.54.0"  # of uvicorn
_LARGEST_HEAD = 1 << 19  # bytes, including any part of the body that arrives with the head


class LimitedConnection(HttpToolsProtocol):
    """A connection that limits the size of heads and trailers, which httptools does not."""

    _head = 0  # bytes since the last part of a body or the end of a request

    def data_received(self, data: bytes) -> None:
        """Receive bytes, and abort the connection if a head or trailers are too large."""
        self._head += len(data)
        super().data_received(data)
        if self._head > _LARGEST_HEAD:
            self.transport.abort()

    def on_headers_complete(self) -> None:
        """Begin a request; its trailers must not count as headers."""
        super().on_headers_complete()
        self.headers = []

    def on_body(self, body: bytes) -> None:
        """Receive a part of a body."""
        self._head = 0
        super().on_body(body)

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio takes True
        """Keep the connection of a client that closed its sending side and waits for its response.

        uvicorn would close the connection at once and lose the response of a request that has not
        started. A TLS connection cannot be closed on one side only.
        """
        cycle = self.cycle
        is_waiting = cycle is not None and not cycle.more_body and not cycle.response_complete
        if not is_waiting or self.transport.get_extra_info("sslcontext") is not None:
            return False
        cycle.keep_alive = False
        return True

    def on_message_complete(self) -> None:
        """Process the end of a request."""
        self._head = 0
        super().on_message_complete()


def request_counter(server: uvicorn.Server) -> Callable[[], int]:
    """Return a function that counts the requests in flight, including those without a complete body.

    The application cannot count requests whose task has not started. It needs the number because a
    single request is predicted at once, without a batch.
    """
    tasks = server.server_state.tasks
    return lambda: len(tasks)


def waiting_connections(server: uvicorn.Server) -> Iterator[tuple[Any, int]]:
    """Yield each connection that waits for its client, with the number of bytes still to send.

    Such a connection waits for a first head, for the rest of a head, or for the client to read.
    uvicorn has a timeout only for the time between two requests.
    """
    connections: list[Any] = list(server.server_state.connections)
    for connection in connections:
        left = connection.transport.get_write_buffer_size()
        cycle = connection.cycle
        has_no_request = cycle is None or cycle.response_complete
        if left or (has_no_request and connection.timeout_keep_alive_task is None):
            yield connection, left


def mark_disconnected(send: Any) -> None:
    """Mark the request of an ASGI `send` as disconnected.

    uvicorn marks only the last one of several pipelined requests.
    """
    send.__self__.disconnected = True


def abort(connection: Any) -> None:
    """Close a connection at once."""
    connection.transport.abort()
