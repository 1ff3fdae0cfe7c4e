"""Runs a candidate on live requests in a separate process and discards its predictions.

Events go to that process as messages over a socket that holds a few hundred of them. A full socket
drops the message, and counts it: no request waits for the shadow.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from registry_tools.processes import encode_message
from registry_tools.serving.engine.prediction_events import PredictionEvent
from registry_tools.serving.observers.metrics import Metrics

_MESSAGE = 100_000  # bytes; a socket takes twice as much at once
_FRAME_ROWS = 100  # of a table that is sent as JSON


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


def make_feed() -> tuple[socket.socket, socket.socket]:
    """Return the two ends of the socket that leads to the shadow: to write to, and to read from."""
    # Messages that keep their bounds: packets in sequence hold more of them than datagrams do.
    kind = socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_DGRAM
    return socket.socketpair(socket.AF_UNIX, kind)


def read_report(file: Path) -> dict[str, Any]:
    """Return the last report of the shadow; empty before the first."""
    try:
        report: dict[str, Any] = json.loads(file.read_text())
    except OSError:
        return {}
    return report
