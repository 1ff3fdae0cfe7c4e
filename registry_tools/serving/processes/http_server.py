"""Run the HTTP application with uvicorn, together with the gRPC server."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import uvicorn

from registry_tools.serving import uvicorn_internals
from registry_tools.serving.rest.app import HttpApp
from registry_tools.serving.service import InferenceService

if TYPE_CHECKING:
    import grpc.aio

# Proxies keep idle connections for a minute; the server must keep them longer than the proxy.
_KEEP_ALIVE_SECONDS = 75
BACKLOG = 2048  # the largest number of connections that wait to be accepted


class HttpServer(uvicorn.Server):
    """A uvicorn server that its owner ends, instead of signals."""

    def __init__(self, service: InferenceService) -> None:
        settings = service.settings
        app = HttpApp(service)
        super().__init__(
            uvicorn.Config(
                app,  # type: ignore[arg-type]
                interface="asgi3",
                http=uvicorn_internals.LimitedConnection,
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
        self._grpc_server: grpc.aio.Server | None = None
        service.http_in_flight = uvicorn_internals.request_counter(self)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing: the owner handles signals."""
        yield

    async def serve_on(self, listening: socket.socket, on_start: Callable[[], None] = lambda: None) -> None:
        """Serve until `end` is called, then finish the requests in flight.

        Parameters
        ----------
        listening
            The socket to accept connections from.
        on_start
            Called when the server accepts requests.

        Raises
        ------
        InputError
            If the port for gRPC cannot be bound.
        """
        settings = self._service.settings
        if settings.grpc_port is not None:
            from registry_tools.serving.grpc.server import create_server

            self._grpc_server = create_server(self._service, settings.grpc_port, settings.workers > 1)
            await self._grpc_server.start()
        on_start()
        sweeping = [
            asyncio.create_task(self._app.sweep()),
            asyncio.create_task(self._close_idle_connections()),
        ]
        try:
            await self.serve(sockets=[listening])
        finally:
            for task in sweeping:
                task.cancel()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting over HTTP and gRPC at the same time, and finish the requests in flight."""
        ending = [super().shutdown(sockets)]
        if self._grpc_server is not None:
            ending.append(self._grpc_server.stop(self._service.settings.timeout))
        await asyncio.gather(*ending)

    async def _close_idle_connections(self) -> None:
        """Close connections whose client does not complete a head or does not read the response.

        uvicorn has no timeout for a first request, for the rest of a head, or for reading a response.
        """
        timeout = self._service.settings.timeout
        stuck: dict[Any, tuple[int, float]] = {}  # the bytes still to send, and the time of that number
        while True:
            await asyncio.sleep(min(timeout, 1.0))
            now = time.monotonic()
            before, stuck = stuck, {}
            for connection, left in uvicorn_internals.waiting_connections(self):
                known = before.get(connection)
                since = known[1] if known is not None and known[0] == left else now
                stuck[connection] = (left, since)
                if now - since > timeout:
                    uvicorn_internals.abort(connection)

    def end(self) -> None:
        """Stop accepting, finish the requests in flight, and end."""
        self._service.draining = True
        self.should_exit = True
