"""Run the HTTP application behind uvicorn, and the gRPC server beside it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from registry_tools.serving.rest.traced_app import create_app
from registry_tools.serving.service import InferenceService

if TYPE_CHECKING:
    from registry_tools.serving.grpc.server import GrpcServer

# Proxies keep a connection for a minute; who closes first must not be the server.
_KEEP_ALIVE_SECONDS = 75
BACKLOG = 2048  # connections that wait to be accepted
_LARGEST_HEAD = 1 << 19  # bytes; what comes at once with a first body counts as well


class LimitedConnection(HttpToolsProtocol):
    """A connection of uvicorn with a limit to the heads of requests, which it has none for."""

    _head = 0

    def data_received(self, data: bytes) -> None:
        """Take in what came, unless it makes a head too large."""
        self._head += len(data)
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._head = 0
        elif self._head > _LARGEST_HEAD:
            self.transport.abort()


class HttpServer(uvicorn.Server):
    """uvicorn, ended by its owner and not by signals."""

    def __init__(self, service: InferenceService) -> None:
        settings = service.settings
        app = create_app(service)
        super().__init__(
            uvicorn.Config(
                app,  # type: ignore[arg-type]
                interface="asgi3",
                http=LimitedConnection,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=BACKLOG,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=int(settings.timeout) + 1,
                ssl_certfile=settings.ssl_certfile,
                ssl_keyfile=settings.ssl_keyfile,
            )
        )
        self._service = service
        self._app = app
        self._serving: asyncio.Task[None] | None = None
        tasks = self.server_state.tasks
        # uvicorn counts requests that have not begun as well.
        service.http_in_flight = lambda: len(tasks)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the owner."""
        yield

    async def serve_on(self, listening: socket.socket) -> None:
        """Serve until `end` is called, then finish what is in flight.

        Raises
        ------
        InputError
            If the port for gRPC cannot be had.
        """
        grpc_server = self._create_grpc_server()
        if grpc_server is not None:
            await grpc_server.start()
        sweeping = [
            asyncio.create_task(self._app.sweep()),
            asyncio.create_task(self._close_idle_connections()),
        ]
        try:
            await self.serve(sockets=[listening])
        finally:
            for task in sweeping:
                task.cancel()
            if grpc_server is not None:
                await grpc_server.end()

    async def _close_idle_connections(self) -> None:
        """Close connections whose next head does not come to its end, or that nobody reads from.

        uvicorn waits for a first request, for the rest of a head, and for a response to be read, as
        long as the client likes.
        """
        timeout = self._service.settings.timeout
        stuck: dict[Any, tuple[int, float]] = {}  # what is left to send, and since when
        while True:
            await asyncio.sleep(min(timeout, 1.0))
            now = time.monotonic()
            before, stuck = stuck, {}
            for connection in list(self.server_state.connections):
                left = connection.transport.get_write_buffer_size()
                if left or _is_idle(connection):
                    known = before.get(connection)
                    since = known[1] if known is not None and known[0] == left else now
                    stuck[connection] = (left, since)
                    if now - since > timeout:
                        connection.transport.abort()

    def _create_grpc_server(self) -> GrpcServer | None:
        settings = self._service.settings
        if settings.grpc_port is None:
            return None
        from registry_tools.serving.grpc.server import GrpcServer

        return GrpcServer(self._service, settings.grpc_port, settings.workers > 1)

    @property
    def is_serving(self) -> bool:
        """Whether `begin` was called."""
        return self._serving is not None

    def begin(self, listening: socket.socket) -> None:
        """Serve in a task, until `end` is called."""
        self._serving = asyncio.create_task(self.serve_on(listening))

    async def wait_closed(self) -> None:
        """Wait until what was begun has ended; raises as `serve_on`."""
        if self._serving is not None:
            await self._serving

    def end(self) -> None:
        """Stop accepting, finish what is in flight, and end."""
        self._service.draining = True
        self.should_exit = True


def _is_idle(connection: Any) -> bool:
    """Tell whether a connection of uvicorn has no request, and no timer for the next one either."""
    cycle = connection.cycle
    return connection.timeout_keep_alive_task is None and (cycle is None or cycle.response_complete)
