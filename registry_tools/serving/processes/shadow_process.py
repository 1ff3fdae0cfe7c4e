"""The shadow process, which follows its own stage and predicts the rows that workers predicted."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import socket
import time
from collections import Counter
from typing import Any

import numpy as np
import orjson

from registry_tools.files.temp_files import atomic_write
from registry_tools.inference.predictor import Predictor, skip_sklearn_validation
from registry_tools.serving.control import Control
from registry_tools.serving.observers.metrics import ShadowMetrics
from registry_tools.serving.processes.lifecycle import run_loop, settle_memory
from registry_tools.serving.rollout.stage_follower import StageFollower
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
        self._counts: Counter[str] = Counter()  # of rows, by the result of their comparison

    def compare(self, message: bytes) -> None:
        """Predict the rows of a message, and count the predictions that agree."""
        predictor = self.predictor
        line, _, body = message.partition(b"\n")
        head = orjson.loads(line)
        served = head["predictions"]
        if predictor is None:
            self._metrics.dropped.inc(len(served))
            return
        if head["version"] != self._against:
            self._begin(head["version"])
        began = time.perf_counter()
        try:
            agreed = _count_agreements(predictor.predict_json(body, head["method"]), served)
            self._metrics.seconds.labels(predictor.label).observe(time.perf_counter() - began)
            counts = {"agreed": agreed, "disagreed": len(served) - agreed, "error": 0}
        except Exception as error:  # noqa: BLE001 - the next message may succeed
            counts = {"agreed": 0, "disagreed": 0, "error": len(served)}
            _log.debug("%s in the shadow: %s", predictor.artifact, error)
        self._counts.update(counts)
        for outcome, rows in counts.items():
            self._metrics.rows.labels(predictor.label, self._against, outcome).inc(rows)

    def report(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return the report of the shadow; `state` is the state of its rollout."""
        agreed, rows = self._counts["agreed"], self._counts["agreed"] + self._counts["disagreed"]
        return {
            "ref": state["ref"],
            "version": self.predictor.artifact.version if self.predictor is not None else None,
            "against": int(self._against) if self._against else None,
            "rows": rows,
            "agreement": round(agreed / rows, 6) if rows else None,
            "errors": self._counts["error"],
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


def run(settings: Settings, feed: socket.socket, control: Control) -> None:
    """Compare predictions until the parent sends a signal or ends.

    Parameters
    ----------
    settings
        The options of the server.
    feed
        The end of the socket that receives the events of all workers.
    control
        The connection to the parent.
    """
    os.nice(5)  # the workers have priority
    skip_sklearn_validation()
    # The shadow's predictions reach no client, so its version needs no verdict.
    own = dataclasses.replace(settings, ref=str(settings.shadow), cache=None, policy=None)
    run_loop(_compare(own, feed, control))


async def _compare(settings: Settings, feed: socket.socket, control: Control) -> None:
    metrics = ShadowMetrics()
    shadow = ShadowPredictor(metrics)
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
                with atomic_write(control.folder.shadow_report) as partial:
                    partial.write_text(json.dumps(now))
                before = now
            await asyncio.sleep(_REPORT_SECONDS)

    with contextlib.closing(StageFollower(settings, control, shadow.swap, metrics)) as follower:
        loop = asyncio.get_running_loop()
        control.on_poll(follower.wake)
        loop.add_reader(feed, read)
        follower.wake()
        settle_memory()
        work = asyncio.gather(follower.follow(), report())
        control.on_end(work.cancel)
        control.send_ready(settings.ref)
        await work
