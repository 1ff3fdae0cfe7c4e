"""Generate load for the demo: flowers like those of Iris, sent to the server one after the other."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pandas as pd
import requests
from sklearn.datasets import load_iris

_PAUSE = 0.012  # seconds between two flowers
_LAST = 200  # the share of correct predictions is computed over so many predictions


class FlowerSampler:
    """Draw rows like those of Iris, from a normal distribution fitted to each class."""

    def __init__(self, seed: int) -> None:
        iris = load_iris(as_frame=True)
        self.columns = list(iris.data.columns)
        self._names = iris.target_names
        self._fits = [
            (of_kind.mean().to_numpy(), np.cov(of_kind.to_numpy().T))
            for _, of_kind in iris.data.groupby(iris.target)
        ]
        self._random = np.random.default_rng(seed)

    def draw(self, wider: float = 0.0) -> tuple[list[float], str]:
        """Return the four measurements of a flower in cm, and its class name.

        `wider` is added to the petal width, in cm.
        """
        kind = int(self._random.integers(len(self._fits)))
        values = self._random.multivariate_normal(*self._fits[kind])
        values[3] += wider
        return [round(max(float(value), 0.1), 1) for value in values], str(self._names[kind])

    def table(self, flowers: Iterable[tuple[list[float], str]]) -> pd.DataFrame:
        """Return a table of flowers, shape (rows, 5), with the class name in the column `species`."""
        measured, names = zip(*flowers, strict=True)
        return pd.DataFrame(measured, columns=self.columns).assign(species=names)


class LoadGenerator:
    """A thread that sends flowers until `close`, and counts the responses and failures."""

    def __init__(self, port: int, flowers: FlowerSampler) -> None:
        """Start the thread."""
        self.wider = 0.0
        self.responses = self.failed = 0
        self.version: int | None = None
        self.since = time.time()  # start time of the current window
        self.sent: list[tuple[str, list[float], str]] = []  # request id, measurements, class name
        self._port = port
        self._flowers = flowers
        self._correct: deque[bool] = deque(maxlen=_LAST)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._ending.set()
        self._thread.join()

    @property
    def correct(self) -> list[bool]:
        """Whether each of the last predictions was correct."""
        return list(self._correct)

    def wait_until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until a condition holds, at most `seconds`; return whether it does."""
        until = time.monotonic() + seconds
        while not condition() and time.monotonic() < until:
            time.sleep(0.05)
        return condition()

    def _run(self) -> None:
        with requests.Session() as session:
            session.trust_env = False  # no proxy
            while not self._ending.wait(_PAUSE):
                values, name = self._flowers.draw(self.wider)
                try:
                    request, self.version, prediction = self._send(session, values)
                except requests.RequestException:
                    self.failed += 1
                    continue
                self.responses += 1
                self._correct.append(prediction == name)
                self.sent.append((request, values, name))

    def _send(self, session: requests.Session, values: Sequence[float]) -> tuple[str, int, str]:
        address = f"http://127.0.0.1:{self._port}/predict"
        response = session.post(address, json={"features": values}, timeout=10)
        response.raise_for_status()
        version = int(response.headers["X-Model-Version"])
        return response.headers["X-Request-Id"], version, response.json()["prediction"]
