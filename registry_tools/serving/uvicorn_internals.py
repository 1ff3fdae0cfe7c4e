"""The private parts of uvicorn that the server uses, each with its reason.

uvicorn has a public option for none of them. A test names the version of uvicorn that this was
written for: read this file against a new version before you change the test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

VERSION = "0.54.0"  # of uvicorn
_LARGEST_HEAD = 1 << 19  # bytes; a part of the body that comes together with the head counts too


class LimitedConnection(HttpToolsProtocol):
    """A connection with a limit on the size of heads and trailers: httptools has none."""

    _head = 0  # bytes since the last part of a body, or the last request

    def data_received(self, data: bytes) -> None:
        """Receive bytes, unless they make a head or the trailers too large."""
        self._head += len(data)
        super().data_received(data)
        if self._head > _LARGEST_HEAD:
            self.transport.abort()

    def on_headers_complete(self) -> None:
        """Begin a request, whose trailers will not count as headers."""
        super().on_headers_complete()
        self.headers = []

    def on_body(self, body: bytes) -> None:
        """Receive a part of a body."""
        self._head = 0
        super().on_body(body)

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio takes True
        """Keep the connection of a client that sends no more, but waits for its response.

        uvicorn closes it at once, and loses the response of a request that has not begun. TLS has no
        connection that is closed on one side.
        """
        cycle = self.cycle
        is_waiting = cycle is not None and not cycle.more_body and not cycle.response_complete
        if not is_waiting or self.transport.get_extra_info("sslcontext") is not None:
            return False
        cycle.keep_alive = False
        return True

    def on_message_complete(self) -> None:
        """Receive the end of a request."""
        self._head = 0
        super().on_message_complete()


def request_counter(server: uvicorn.Server) -> Callable[[], int]:
    """Return a function that counts the requests in flight, those without a complete body too.

    The application sees a request only when it runs; a request that is alone is predicted at once,
    without a wait for others.
    """
    tasks = server.server_state.tasks
    return lambda: len(tasks)


def waiting_connections(server: uvicorn.Server) -> Iterator[tuple[Any, int]]:
    """Yield each connection that waits for its client, with the bytes left to send.

    It waits for a first head, for the rest of a head, or for the client to read. uvicorn has a
    timeout for the time between two requests only.
    """
    connections: list[Any] = list(server.server_state.connections)
    for connection in connections:
        left = connection.transport.get_write_buffer_size()
        cycle = connection.cycle
        has_no_request = cycle is None or cycle.response_complete
        if left or (has_no_request and connection.timeout_keep_alive_task is None):
            yield connection, left


def mark_disconnected(send: Any) -> None:
    """Tell the request of an ASGI `send` that its client disconnected.

    uvicorn tells only the last of several pipelined requests.
    """
    send.__self__.disconnected = True


def abort(connection: Any) -> None:
    """Close a connection at once."""
    connection.transport.abort()
