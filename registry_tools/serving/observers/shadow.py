"""Send prediction events to the shadow, a process that runs a candidate on live requests.

Workers send messages over a socket that holds a few hundred of them. If the socket is full, the worker
drops the message and counts its rows, so that no request waits for the shadow.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from registry_tools.serving.engine.prediction_events import PredictionEvent
from registry_tools.serving.observers.metrics import Metrics

_MESSAGE = 100_000  # bytes of one message; a socket accepts twice as many
_CELL = 64  # assumed bytes of a value, to choose the number of rows of a message


class ShadowFeed:
    """Sends the events of a worker to the shadow process."""

    def __init__(self, end: socket.socket, metrics: Metrics) -> None:
        end.setblocking(False)
        self._end = end
        self._metrics = metrics

    def observe(self, event: PredictionEvent) -> None:
        """Send an event, or drop it and count its rows."""
        left = event.row_count
        try:
            for rows, message in messages(event):
                self._end.send(message)
                left -= rows
        except (OSError, TypeError, ValueError):  # full, too large or closed; or unsupported types
            self._metrics.shadow_dropped(left)


def messages(event: PredictionEvent) -> Iterator[tuple[int, bytes]]:
    """Yield the messages of an event, each with its number of rows: a line of JSON, then a JSON request.

    Raises
    ------
    TypeError
        If the rows are not a table.
    """
    rows, schema = np.concatenate(event.rows), event.predictor.numeric_schema
    if rows.ndim != 2:
        raise TypeError("only tables are compared")
    names = getattr(event.rows[0], "columns", schema.names if schema is not None else None)
    predictions = [one for many in event.predictions for one in many]
    step = max(_MESSAGE // (_CELL * rows.shape[1] + _CELL), 1)
    for begin in range(0, len(rows), step):
        part, predicted = rows[begin : begin + step].tolist(), predictions[begin : begin + step]
        content: Any = {"inputs": part}
        if names is not None:
            content = {"dataframe_split": {"columns": list(names), "data": part}}
        head = {"version": event.predictor.label, "method": event.method, "predictions": predicted}
        yield len(part), orjson.dumps(head) + b"\n" + orjson.dumps(content)


def read_report(file: Path) -> dict[str, Any]:
    """Return the last report of the shadow; empty before the first report."""
    return json.loads(file.read_text()) if file.exists() else {}
