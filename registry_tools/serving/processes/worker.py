"""A process that answers: the application behind uvicorn, and the version it was told to load."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import skops.io  # noqa: F401 - here, where it does without what is left out (see `lean`)
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from registry_tools.inference.lazy_imports import import_beside_answers
from registry_tools.inference.model_artifact import ModelArtifact
from registry_tools.inference.model_loader import load
from registry_tools.inference.predictor import Predictor
from registry_tools.serving.engine.batcher import skip_sklearn_validation
from registry_tools.serving.observers.metrics import Metrics
from registry_tools.serving.rest.app import App
from registry_tools.serving.settings import Settings
from registry_tools.serving.threads import run_in_thread

if TYPE_CHECKING:
    from registry_tools.serving.grpc.server import GrpcServer
    from registry_tools.serving.observers.prediction_log import PredictionLog

T = TypeVar("T")

# Proxies keep a connection for a minute; who closes first must not be the server.
_KEEP_ALIVE_SECONDS = 75
BACKLOG = 2048  # connections that wait to be accepted
_LARGEST_HEAD = 1 << 19  # bytes; what comes at once with a first body counts as well


class Worker:
    """The host of a version in this process."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        skip_sklearn_validation()
        import_beside_answers()
        self.app = App(settings, metrics)
        self._policy = settings.policy
        self._began = time.time()
        self._prepared: dict[str, Predictor] = {}
        self._log: PredictionLog | None = None
        if settings.log_predictions:
            from registry_tools.serving.observers.prediction_log import PredictionLog

            folder = Path(settings.log_predictions)
            self._log = PredictionLog(folder, settings.sample, settings.log_every, metrics.logged)
            self.app.observers.append(self._log)
            self.app.prediction_log = lambda: self._log.state

    def close(self) -> None:
        """Write what the prediction log holds."""
        if self._log is not None:
            self._log.close()

    async def prepare(self, artifact: ModelArtifact) -> None:
        """Load a version beside the one that answers, and try it."""
        predictor = await run_in_thread(lambda: load(artifact, self._policy), "load")
        self._prepared[artifact.folder] = predictor

    async def swap(self, artifact: ModelArtifact) -> None:
        """Let the prepared version answer; requests under way end on the one they began with."""
        self.app.data_plane.current = self._prepared.pop(artifact.folder)

    async def drop(self, artifact: ModelArtifact) -> None:
        """Forget a prepared version."""
        self._prepared.pop(artifact.folder, None)

    def report_status(self, state: dict[str, Any]) -> None:
        """Take in how the following goes."""
        self.app.state = state
        predictor = self.app.data_plane.current
        if predictor is not None and predictor.artifact.stage is not None:
            answer = state["last_answer"]
            # Before it answered at all, it is silent for as long as this process lives.
            at = datetime.fromisoformat(answer).timestamp() if answer else self._began
            self.app.metrics.registry_answered(at)


class Connection(HttpToolsProtocol):
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


class Server(uvicorn.Server):
    """uvicorn, told by its owner when to end."""

    def __init__(self, app: App) -> None:
        settings = app.settings
        super().__init__(
            uvicorn.Config(
                app,  # type: ignore[arg-type]
                interface="asgi3",
                http=Connection,
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
        self._app = app
        self._serving: asyncio.Task[None] | None = None
        tasks = self.server_state.tasks
        app.in_flight = lambda: len(tasks) + app.others

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
            asyncio.create_task(self._close_stuck()),
        ]
        try:
            await self.serve(sockets=[listening])
        finally:
            for task in sweeping:
                task.cancel()
            if by_grpc is not None:
                await by_grpc.end()

    async def _close_stuck(self) -> None:
        """Close connections whose next head does not come to its end, or that nobody reads from.

        uvicorn waits for a first request, for the rest of a head, and for an answer to be taken, as
        long as the client likes.
        """
        timeout = self._app.settings.timeout
        stuck: dict[Any, tuple[int, float]] = {}  # what is left to send, and since when
        while True:
            await asyncio.sleep(min(timeout, 1.0))
            now = time.monotonic()
            before, stuck = stuck, {}
            for connection in list(self.server_state.connections):
                left = connection.transport.get_write_buffer_size()
                if left or _is_silent(connection):
                    known = before.get(connection)
                    since = known[1] if known is not None and known[0] == left else now
                    stuck[connection] = (left, since)
                    if now - since > timeout:
                        connection.transport.abort()

    def _grpc(self) -> GrpcServer | None:
        settings = self._app.settings
        if settings.grpc_port is None:
            return None
        from registry_tools.serving.grpc.server import GrpcServer

        return GrpcServer(self._app, settings.grpc_port, settings.workers > 1)

    @property
    def begun(self) -> bool:
        """Whether `begin` was called."""
        return self._serving is not None

    def begin(self, listening: socket.socket) -> None:
        """Answer in a task, until told to end."""
        self._serving = asyncio.create_task(self.run_on(listening))

    async def ended(self) -> None:
        """Wait until what was begun has ended; raises as `run_on`."""
        if self._serving is not None:
            await self._serving

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


async def unless_ended(work: Awaitable[T], ending: asyncio.Event) -> T | None:
    """Return what work comes to; None if the end is told before."""
    working = asyncio.ensure_future(work)
    told = asyncio.ensure_future(ending.wait())
    await asyncio.wait([working, told], return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    if working.done():
        return working.result()
    working.cancel()
    return None


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
    grpc = f", gRPC on port {settings.grpc_port}" if settings.grpc_port else ""
    sys.stderr.write(f"serving {settings.ref} ({what}) on {where}{grpc}; /docs shows how to ask\n")
    sys.stderr.flush()
