"""The process of a shadow: it follows its own stage and predicts the rows that workers predicted.

It is started with two file descriptors. Over the first go the settings in and reports out, over the
second the messages of `shadow`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import socket
import sys
import time
from collections import deque
from typing import Any

import numpy as np
import uvloop

from registry_tools.errors import RegistryToolsError
from registry_tools.inference.model_artifact import ModelArtifact
from registry_tools.inference.model_loader import load
from registry_tools.inference.predictor import Predictor, skip_sklearn_validation
from registry_tools.processes import decode_message, encode_message, receive_message
from registry_tools.serving.observers.metrics import ShadowMetrics
from registry_tools.serving.rollout.stage_follower import StageFollower, artifact_fetcher_for
from registry_tools.serving.settings import Settings
from registry_tools.terminal import log_to_stderr

_log = logging.getLogger(__name__)

_MAX_MESSAGE = 1 << 20
_MESSAGES_AT_ONCE = 32
_REPORT_SECONDS = 1.0
_LATENCIES = 1000  # calls, of which the latencies are reported
_RELATIVE = 1e-6  # two values this close agree


class ShadowPredictor:
    """The target of rollouts in the shadow, and the comparison of its predictions."""

    def __init__(self, settings: Settings, metrics: ShadowMetrics) -> None:
        self.predictor: Predictor | None = None
        self.rows = self.agreed = self.errors = 0
        self._against = ""  # the version that it is compared with
        self._seconds: deque[float] = deque(maxlen=_LATENCIES)
        self.state: dict[str, Any] = {}
        self._policy = settings.policy
        self._metrics = metrics
        self._loaded: dict[str, Predictor] = {}

    async def prepare(self, artifact: ModelArtifact) -> None:
        """Load and check a version."""
        loop = asyncio.get_running_loop()
        predictor = await loop.run_in_executor(None, load, artifact, self._policy)
        self._loaded[artifact.folder] = predictor

    async def swap(self, artifact: ModelArtifact) -> None:
        """Predict with the prepared version, and count anew."""
        self.predictor = self._loaded.pop(artifact.folder)
        self._begin("")

    def _begin(self, against: str) -> None:
        self._against = against
        self.rows = self.agreed = self.errors = 0
        self._seconds.clear()

    async def drop(self, artifact: ModelArtifact) -> None:
        """Forget a prepared version."""
        self._loaded.pop(artifact.folder, None)

    def report_status(self, state: dict[str, Any]) -> None:
        """Keep the state of the rollout."""
        self.state = state

    def compare(self, message: bytes) -> None:
        """Predict the rows of a message, and count the predictions that agree."""
        predictor = self.predictor
        head, raw = decode_message(message)
        served = head["predictions"]
        if predictor is None:
            self._metrics.dropped(len(served))
            return
        if head["version"] != self._against:
            self._begin(head["version"])
        began = time.perf_counter()
        try:
            predicted = _predict(predictor, head, raw)
            agreed = _count_agreements(predicted, served)
        except Exception as error:  # noqa: BLE001 - whatever it raises, the next message is another
            self.errors += len(served)
            self._metrics.compared(predictor.label, self._against, 0, 0, len(served))
            _log.debug("%s in the shadow: %s", predictor.artifact, error)
            return
        seconds = time.perf_counter() - began
        self._seconds.append(seconds)
        self._metrics.predicted(predictor.label, seconds)
        self.rows += len(served)
        self.agreed += agreed
        self._metrics.compared(predictor.label, self._against, agreed, len(served) - agreed, 0)

    def report(self) -> dict[str, Any]:
        """Return the report of the shadow."""
        latest = sorted(self._seconds)
        return {
            "ref": self.state.get("ref"),
            "version": self.predictor.artifact.version if self.predictor is not None else None,
            "against": int(self._against) if self._against else None,
            "rows": self.rows,
            "agreement": round(self.agreed / self.rows, 6) if self.rows else None,
            "errors": self.errors,
            "p50_ms": round(latest[len(latest) // 2] * 1000, 3) if latest else None,
            "p99_ms": round(latest[len(latest) * 99 // 100] * 1000, 3) if latest else None,
            "last_error": self.state.get("last_error"),
            "candidate": self.state.get("candidate"),
        }


def _predict(predictor: Predictor, head: dict[str, Any], raw: bytes) -> list[Any]:
    method = head["method"]
    content = head.get("content")
    if content is None:
        matrix = np.frombuffer(raw, head["dtype"]).reshape(len(head["predictions"]), -1)
        names = head["columns"]
        if predictor.numeric_schema is not None and names is not None:
            if names != predictor.numeric_schema.names:
                matrix = matrix[:, [names.index(name) for name in predictor.numeric_schema.names]]
            return predictor.predict(matrix.astype(predictor.numeric_schema.dtype), method)
        split = {"columns": names, "data": matrix.tolist()}
        content = {"dataframe_split": split} if names else {"inputs": matrix.tolist()}
    return predictor.mlflow_scoring.predict_json(content, method)


def _count_agreements(predicted: list[Any], served: list[Any]) -> int:
    """Return in how many rows two lists agree; of probabilities, on the likeliest class."""
    if len(predicted) != len(served):
        raise ValueError("a different number of predictions")
    if served and isinstance(served[0], list):
        return int((np.argmax(predicted, axis=1) == np.argmax(served, axis=1)).sum())
    if served and isinstance(served[0], float):
        return int(np.isclose(predicted, served, rtol=_RELATIVE, equal_nan=True).sum())
    return sum(a == b for a, b in zip(predicted, served, strict=True))


async def _run(control: socket.socket, feed: socket.socket) -> None:
    reader, writer = await asyncio.open_connection(sock=control)
    received = await receive_message(reader)
    if received is None:  # the server is gone
        return
    settings = Settings.from_json(received[0]["settings"])
    settings = dataclasses.replace(settings, ref=str(settings.shadow), cache=None)
    metrics = ShadowMetrics()
    candidate = ShadowPredictor(settings, metrics)
    fetcher = artifact_fetcher_for(settings)
    follower = StageFollower(fetcher, lambda: [candidate], metrics, settings.poll)
    feed.setblocking(False)

    def read() -> None:
        for _ in range(_MESSAGES_AT_ONCE):
            try:
                message = feed.recv(_MAX_MESSAGE)
            except BlockingIOError:
                return
            if message:
                candidate.compare(message)

    async def report() -> None:
        before: dict[str, Any] = {}
        while True:
            now = candidate.report()
            if now != before:
                writer.write(encode_message(now))
                before = now
            await asyncio.sleep(_REPORT_SECONDS)

    asyncio.get_running_loop().add_reader(feed, read)
    follower.wake()
    tasks = [asyncio.create_task(follower.follow()), asyncio.create_task(report())]
    try:
        await reader.read()  # until the other side is gone
    finally:
        for task in tasks:
            task.cancel()
        fetcher.close()


def main() -> int:
    """Compare until the server is gone."""
    log_to_stderr(logging.WARNING, "%(levelname)s: shadow: %(message)s")
    os.nice(5)  # the server first
    skip_sklearn_validation()
    control, feed = (socket.socket(fileno=int(number)) for number in sys.argv[1:])
    try:
        uvloop.run(_run(control, feed))
    except (RegistryToolsError, ConnectionError) as error:
        _log.warning("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
