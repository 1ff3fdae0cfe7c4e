"""A worker as a process of its own, started by the supervisor with file descriptors.

Over the first, messages go either way: the supervisor sends `{"id", "command", …}` and receives
`{"id", "error"}`, and the other way round. The second is the socket to accept from; the third, if
there is a shadow, leads to it.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import socket
import sys
from typing import Any

import uvloop

from registry_tools.errors import RegistryToolsError, error_summary
from registry_tools.inference.model_artifact import ModelArtifact
from registry_tools.processes import encode_message, receive_message
from registry_tools.serving.observers.metrics import Metrics
from registry_tools.serving.observers.shadow import ShadowFeed
from registry_tools.serving.processes.http_server import HttpServer
from registry_tools.serving.processes.lifecycle import settle_memory, stop_on_signals
from registry_tools.serving.processes.worker import Worker
from registry_tools.serving.settings import Settings
from registry_tools.terminal import log_to_stderr

_log = logging.getLogger(__name__)


class SupervisorConnection:
    """The messages between a worker and its supervisor, seen by the worker."""

    def __init__(self, writer: asyncio.StreamWriter, worker: Worker) -> None:
        self._writer = writer
        self._worker = worker
        self._commands = {"prepare": worker.prepare, "swap": worker.swap, "drop": worker.drop}
        self._numbers = itertools.count()
        self._pending: dict[int, asyncio.Future[None]] = {}

    def send(self, message: dict[str, Any]) -> None:
        """Send a message."""
        self._writer.write(encode_message(message))

    async def refresh(self) -> None:
        """Have the supervisor poll at once, and wait until it has."""
        number = next(self._numbers)
        self._pending[number] = asyncio.get_running_loop().create_future()
        self.send({"id": number, "command": "refresh"})
        try:
            await self._pending[number]
        finally:
            del self._pending[number]

    def refreshed(self, number: int) -> None:
        """Resolve the refresh that has finished."""
        future = self._pending.get(number)
        if future is not None and not future.done():  # else it was cancelled
            future.set_result(None)

    def report_status(self, state: dict[str, Any]) -> None:
        """Pass the state of the rollout on to the worker."""
        self._worker.report_status(state)

    async def run_command(self, message: dict[str, Any]) -> None:
        """Prepare, swap or drop a version, and send the error, if any."""
        error = None
        try:
            await self._commands[message["command"]](ModelArtifact.from_json(message["artifact"]))
        except RegistryToolsError as raised:
            error = str(raised)
        except Exception as raised:  # noqa: BLE001 - sent: the supervisor waits for it
            _log.exception("%s failed", message["command"])
            error = error_summary(raised)
        self.send({"id": message["id"], "error": error})


async def _run(control: socket.socket, listening: socket.socket, feed: socket.socket | None = None) -> int:
    reader, writer = await asyncio.open_connection(sock=control)
    received = await receive_message(reader)
    if received is None:  # the supervisor is gone
        return 1
    metrics = Metrics()
    worker = Worker(Settings.from_json(received[0]["settings"]), metrics)
    if feed is not None:
        worker.service.observers.append(ShadowFeed(feed, metrics))
    server = HttpServer(worker.service)
    connection = SupervisorConnection(writer, worker)
    worker.service.refresh = connection.refresh
    commands = asyncio.create_task(_run_commands(reader, connection, server, listening))

    def end() -> None:
        commands.cancel()

    stop_on_signals(end)
    try:
        await commands
    except (asyncio.CancelledError, ConnectionError):
        pass  # a signal, or the supervisor is gone
    finally:
        server.end()
        await server.wait_closed()
        worker.close()
    return 0


async def _run_commands(
    reader: asyncio.StreamReader,
    connection: SupervisorConnection,
    server: HttpServer,
    listening: socket.socket,
) -> None:
    """Run the commands of the supervisor until it sends `end`, or is gone."""
    in_flight: set[asyncio.Task[None]] = set()
    connection.send({"command": "ready"})
    while received := await receive_message(reader):
        message, _ = received
        if message["command"] == "end":
            return
        if message["command"] == "report_status":
            connection.report_status(message["state"])
        elif message["command"] == "refreshed":
            connection.refreshed(message["id"])
        else:
            task = asyncio.create_task(connection.run_command(message))
            in_flight.add(task)
            task.add_done_callback(in_flight.discard)
            if message["command"] == "swap" and not server.is_serving:
                await task
                settle_memory()
                server.begin(listening)


def main() -> int:
    """Serve until the supervisor sends `end`, or is gone."""
    gc.disable()  # until all is loaded
    log_to_stderr(logging.WARNING, "%(levelname)s: %(message)s")
    return uvloop.run(_run(*(socket.socket(fileno=int(number)) for number in sys.argv[1:])))


if __name__ == "__main__":
    sys.exit(main())
