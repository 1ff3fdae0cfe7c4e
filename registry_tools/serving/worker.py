"""A process that answers: the application behind uvicorn, and the version it was told to load."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import skops.io  # noqa: F401 - here, where it does without what is left out (see `lean`)
import uvicorn

from registry_tools.serving.app import App
from registry_tools.serving.batcher import trust_inputs
from registry_tools.serving.lean import import_beside_answers
from registry_tools.serving.loading import load
from registry_tools.serving.metrics import Metrics
from registry_tools.serving.served import Served
from registry_tools.serving.settings import Settings
from registry_tools.serving.source import Source

if TYPE_CHECKING:
    from registry_tools.serving.open_inference_grpc import GrpcServer
    from registry_tools.serving.prediction_log import PredictionLog

# Proxies keep a connection for a minute; who closes first must not be the server.
_KEEP_ALIVE_SECONDS = 75


class Worker:
    """The host of a version in this process."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        trust_inputs()
        import_beside_answers()
        self.app = App(settings, metrics)
        self._policy = settings.policy
        self._prepared: dict[str, Served] = {}
        self._log: PredictionLog | None = None
        if settings.log_predictions:
            from registry_tools.serving.prediction_log import PredictionLog

            folder = Path(settings.log_predictions)
            self._log = PredictionLog(folder, settings.sample, settings.log_every, metrics.logged)
            self.app.watchers.append(self._log)
            self.app.prediction_log = lambda: self._log.state

    def close(self) -> None:
        """Write what the prediction log holds."""
        if self._log is not None:
            self._log.close()

    async def prepare(self, source: Source) -> None:
        """Load a version beside the one that answers, and try it."""
        served = await self.app.plane.off_the_loop(load, source, self._policy)
        self._prepared[source.folder] = served

    async def swap(self, source: Source) -> None:
        """Let the prepared version answer; requests under way end on the one they began with."""
        self.app.plane.current = self._prepared.pop(source.folder)

    async def drop(self, source: Source) -> None:
        """Forget a prepared version."""
        self._prepared.pop(source.folder, None)

    def tell(self, state: dict[str, Any]) -> None:
        """Take in how the following goes."""
        self.app.state = state


class Server(uvicorn.Server):
    """uvicorn, told by its owner when to end."""

    def __init__(self, app: App) -> None:
        settings = app.settings
        super().__init__(
            uvicorn.Config(
                app,  # type: ignore[arg-type]
                interface="asgi3",
                http="httptools",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=int(settings.timeout) + 1,
                ssl_certfile=settings.ssl_certfile,
                ssl_keyfile=settings.ssl_keyfile,
            )
        )
        self._app = app
        tasks = self.server_state.tasks
        app.under_way = lambda: len(tasks)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the owner."""
        yield

    async def run_on(self, listening: socket.socket) -> None:
        """Answer until told to end, then finish what is in flight.

        Raises
        ------
        InputError
            If the port for gRPC cannot be had.
        """
        by_grpc = self._grpc()
        if by_grpc is not None:
            await by_grpc.start()
        sweeping = [
            asyncio.create_task(self._app.sweep()),
            asyncio.create_task(self._close_silent()),
        ]
        try:
            await self.serve(sockets=[listening])
        finally:
            for task in sweeping:
                task.cancel()
            if by_grpc is not None:
                await by_grpc.end()

    async def _close_silent(self) -> None:
        """Close connections whose next request does not come to the end of its head in time.

        uvicorn waits for a first request, and for the rest of a head, as long as the client likes.
        """
        timeout = self._app.settings.timeout
        since: dict[Any, float] = {}  # connections without a request, and since when
        while True:
            await asyncio.sleep(min(timeout, 1.0))
            now = time.monotonic()
            silent = [each for each in self.server_state.connections if _is_silent(each)]
            since = {each: since.get(each, now) for each in silent}
            for connection, began in since.items():
                if now - began > timeout:
                    connection.transport.close()

    def _grpc(self) -> GrpcServer | None:
        settings = self._app.settings
        if settings.grpc_port is None:
            return None
        from registry_tools.serving.open_inference_grpc import GrpcServer

        return GrpcServer(self._app, settings.grpc_port, settings.workers > 1)

    def end(self) -> None:
        """Stop accepting, finish what is in flight, and end."""
        self._app.draining = True
        self.should_exit = True


def _is_silent(connection: Any) -> bool:
    """Tell whether a connection of uvicorn has no request, and no timer for the next one either."""
    cycle = connection.cycle
    return connection.timeout_keep_alive_task is None and (cycle is None or cycle.response_complete)


def end_on_signals(end: Callable[[], None]) -> None:
    """Call a function on SIGTERM and SIGINT."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)


def settle_memory() -> None:
    """Leave what was loaded out of garbage collection, and look for new garbage less often.

    A request leaves none, so that looking through all that lives would only make others wait.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    gc.enable()


def announce(settings: Settings, listening: socket.socket, what: str) -> None:
    """Tell on stderr what is served, and where."""
    scheme = "https" if settings.ssl_certfile else "http"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    where = f"{scheme}://{host}:{listening.getsockname()[1]}"
    sys.stderr.write(f"serving {settings.ref} ({what}) on {where}; /docs shows how to ask\n")
    sys.stderr.flush()
