"""The shadow process, which follows its own stage and predicts the rows that workers predicted."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import signal
import socket
import time
from typing import Any

import numpy as np
import orjson

from registry_tools.files.temp_files import atomic_write
from registry_tools.inference.predictor import Predictor, skip_sklearn_validation
from registry_tools.serving.observers.metrics import ShadowMetrics
from registry_tools.serving.processes.control import Control, ProcessFolder
from registry_tools.serving.processes.lifecycle import run_loop, settle_memory
from registry_tools.serving.processes.worker import loader
from registry_tools.serving.rollout.stage_follower import StageFollower
from registry_tools.serving.rollout.trials import Trials
from registry_tools.serving.settings import Settings

_log = logging.getLogger(__name__)

_MAX_MESSAGE = 1 << 20
_REPORT_SECONDS = 1.0
_RELATIVE = 1e-6  # the relative difference at which two numbers still agree


class ShadowPredictor:
    """Predicts with the shadow's version, and compares its predictions with the served ones."""

    def __init__(self, metrics: ShadowMetrics) -> None:
        self.predictor: Predictor | None = None
        self._metrics = metrics
        self._begin("")

    def swap(self, predictor: Predictor) -> None:
        """Predict with a new version from now on, and reset the counts."""
        self.predictor = predictor
        self._begin("")

    def _begin(self, against: str) -> None:
        self._against = against  # the served version to compare with
        self.rows = self.agreed = self.errors = 0

    def compare(self, message: bytes) -> None:
        """Predict the rows of a message, and count the predictions that agree."""
        predictor = self.predictor
        line, _, body = message.partition(b"\n")
        head = orjson.loads(line)
        served = head["predictions"]
        if predictor is None:
            self._metrics.dropped(len(served))
            return
        if head["version"] != self._against:
            self._begin(head["version"])
        began = time.perf_counter()
        try:
            predicted = predictor.predict_json(body, head["method"])
            agreed = _count_agreements(predicted, served)
        except Exception as error:  # noqa: BLE001 - the next message may succeed
            self.errors += len(served)
            self._metrics.compared(predictor.label, self._against, 0, 0, len(served))
            _log.debug("%s in the shadow: %s", predictor.artifact, error)
            return
        self._metrics.predicted(predictor.label, time.perf_counter() - began)
        self.rows += len(served)
        self.agreed += agreed
        self._metrics.compared(predictor.label, self._against, agreed, len(served) - agreed, 0)

    def report(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return the report of the shadow; `state` is the state of its rollout."""
        return {
            "ref": state["ref"],
            "version": self.predictor.artifact.version if self.predictor is not None else None,
            "against": int(self._against) if self._against else None,
            "rows": self.rows,
            "agreement": round(self.agreed / self.rows, 6) if self.rows else None,
            "errors": self.errors,
            "last_error": state["last_error"],
            "candidate": state["candidate"],
        }


def _count_agreements(predicted: list[Any], served: list[Any]) -> int:
    """Return the number of rows with equal predictions; for probabilities, with the same likeliest class."""
    if len(predicted) != len(served):
        raise ValueError("a different number of predictions")
    if served and isinstance(served[0], list):
        return int((np.argmax(predicted, axis=1) == np.argmax(served, axis=1)).sum())
    if served and isinstance(served[0], float):
        return int(np.isclose(predicted, served, rtol=_RELATIVE, equal_nan=True).sum())
    return sum(a == b for a, b in zip(predicted, served, strict=True))


def run(settings: Settings, feed: socket.socket, folder: ProcessFolder, control: Control) -> int:
    """Compare predictions until the parent sends a signal or ends; return the exit code.

    Parameters
    ----------
    settings
        The options of the server.
    feed
        The end of the socket that receives the events of all workers.
    folder, control
        As for `worker.run`.
    """
    os.nice(5)  # the workers have priority
    skip_sklearn_validation()
    run_loop(_compare(settings, feed, folder, control))
    return 0


async def _compare(settings: Settings, feed: socket.socket, folder: ProcessFolder, control: Control) -> None:
    settings = dataclasses.replace(settings, cache=None)
    metrics = ShadowMetrics()
    shadow = ShadowPredictor(metrics)
    fetcher = folder.fetcher(settings, str(settings.shadow))
    trials = Trials(control.connection, folder.trials, folder.path, settings.policy, settings.trial_limits)
    follower = StageFollower(
        fetcher, loader(trials, settings), shadow.swap, metrics, settings.poll, settings.load_seconds
    )
    feed.setblocking(False)

    def read() -> None:
        with contextlib.suppress(BlockingIOError):
            if message := feed.recv(_MAX_MESSAGE):
                shadow.compare(message)

    async def report() -> None:
        before: dict[str, Any] = {}
        while True:
            now = shadow.report(follower.state)
            if now != before:
                with atomic_write(folder.shadow_report) as partial:
                    partial.write_text(json.dumps(now))
                before = now
            await asyncio.sleep(_REPORT_SECONDS)

    loop = asyncio.get_running_loop()
    ending = asyncio.Event()
    control.on_end(ending.set)
    loop.add_signal_handler(signal.SIGHUP, follower.wake)
    loop.add_reader(feed, read)
    follower.wake()
    settle_memory()
    control.send_ready(str(settings.shadow))
    tasks = [asyncio.create_task(follower.follow()), asyncio.create_task(report())]
    try:
        await ending.wait()
    finally:
        for task in tasks:
            task.cancel()
        fetcher.close()
