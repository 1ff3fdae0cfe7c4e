"""Runs a candidate on live requests in a separate process and discards its predictions.

Events go to that process as messages over a socket that holds a few hundred of them. A full socket
drops the message, and counts it: no request waits for the shadow.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from registry_tools.processes import encode_message, receive_message
from registry_tools.serving.engine.prediction_events import PredictionEvent
from registry_tools.serving.observers.metrics import Metrics
from registry_tools.serving.settings import Settings

_log = logging.getLogger(__name__)

_MESSAGE = 100_000  # bytes; a socket takes twice as much at once
_FRAME_ROWS = 100  # of a table that is sent as JSON
_MIN_UPTIME = 10.0
_RESTART_DELAY = 5.0
_END_SECONDS = 3.0


class ShadowFeed:
    """The end of the socket to which a worker writes its events."""

    def __init__(self, end: socket.socket, metrics: Metrics) -> None:
        end.setblocking(False)
        self._end = end
        self._metrics = metrics

    def observe(self, event: PredictionEvent) -> None:
        """Send it, or drop it."""
        left = sum(map(len, event.predictions))
        try:
            for rows, message in messages(event):
                self._end.send(message)
                left -= rows
        except (OSError, TypeError):  # full, too large, nobody there; or rows of strange types
            self._metrics.shadow_dropped(left)


def messages(event: PredictionEvent) -> Iterator[tuple[int, bytes]]:
    """Return how many rows each message holds, and the message, whose body is a matrix."""
    version = event.predictor.label
    head: dict[str, Any]
    if not isinstance(event.rows[0], np.ndarray):
        rows, predictions = event.rows[0], event.predictions[0]
        if not hasattr(rows, "columns"):
            raise TypeError("only tables are compared")
        columns, data = list(rows.columns), rows.to_numpy().tolist()
        for begin in range(0, len(predictions), _FRAME_ROWS):
            end = begin + _FRAME_ROWS
            content = {"dataframe_split": {"columns": columns, "data": data[begin:end]}}
            head = {"version": version, "method": event.method, "predictions": predictions[begin:end]}
            yield len(head["predictions"]), encode_message({**head, "content": content})
        return
    matrix = np.concatenate(event.rows) if len(event.rows) > 1 else event.rows[0]
    if matrix.ndim != 2:
        raise TypeError("only tables are compared")
    predictions = [one for many in event.predictions for one in many]
    numeric_schema = event.predictor.numeric_schema
    step = max(_MESSAGE // (8 * matrix.shape[1] + 64), 1)
    for begin in range(0, len(matrix), step):
        part = np.ascontiguousarray(matrix[begin : begin + step])
        head = {
            "version": version,
            "method": event.method,
            "predictions": predictions[begin : begin + step],
            "columns": numeric_schema.names if numeric_schema is not None else None,
            "dtype": part.dtype.str,
        }
        yield len(part), encode_message(head, part.tobytes())


class Shadow:
    """Starts and restarts the process of the shadow, and receives its reports."""

    def __init__(self, settings: Settings, report: Callable[[dict[str, Any]], None]) -> None:
        self.feed, self._receiver = socket.socketpair(socket.AF_UNIX, _socket_kind())
        self._settings = settings
        self._report = report
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def run(self) -> None:
        """Start the process, and start it again when it ends; forever."""
        self._report({"ref": self._settings.shadow, "version": None, "last_error": None})
        while True:
            began = time.monotonic()
            try:
                await self._run_process()
            except OSError as error:
                _log.warning("the shadow does not start: %s", error)
            self._report({"ref": self._settings.shadow, "last_error": "its process ended"})
            if time.monotonic() - began < _MIN_UPTIME:
                await asyncio.sleep(_RESTART_DELAY)

    async def _run_process(self) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "registry_tools.serving.processes.shadow_process"),
                *(str(theirs.fileno()), str(self._receiver.fileno())),
                pass_fds=(theirs.fileno(), self._receiver.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        reader, self._writer = await asyncio.open_connection(sock=ours)
        settings = dataclasses.replace(self._settings, api_keys=())
        self._writer.write(encode_message({"settings": settings.to_json()}))
        with contextlib.suppress(ConnectionError):
            while received := await receive_message(reader):
                self._report(received[0])
        self._writer.close()
        await self._process.wait()

    async def end(self) -> None:
        """End the process; nothing is lost with it but comparisons."""
        if self._process is not None and self._process.returncode is None:
            if self._writer is not None:
                self._writer.close()  # which it takes for the end
            try:
                await asyncio.wait_for(self._process.wait(), _END_SECONDS)
            except asyncio.TimeoutError:
                self._process.kill()
                await self._process.wait()


def _socket_kind() -> socket.SocketKind:
    # Messages that keep their bounds: packets in sequence hold more of them than datagrams do.
    return socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_DGRAM
