"""Batch requests: requests that arrive together share one call of the model.

No request waits for later ones. A single request is predicted at once, or in the next iteration of the
event loop. Requests that arrive in the same iteration form a batch. Slow batches run in one of a few
threads, and meanwhile the next batch collects requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from registry_tools.inference.decoder import Matrix
from registry_tools.inference.predictor import Predictor, skip_sklearn_validation
from registry_tools.serving.engine.prediction_events import (
    PredictionEvent,
    PredictionObserver,
    notify_observers,
)
from registry_tools.serving.engine.request_steps import RequestSteps, begin_queue, call_model

_THREADS = 2
_BATCH_ROWS = 1000  # the largest batch for a thread

# Rows, the future of their predictions, the request id (None if another call counts the rows), and the
# steps if the request is traced.
Waiting = tuple[Matrix, "asyncio.Future[Any]", "str | None", "RequestSteps | None"]


class Batcher:
    """Predicts matrices of rows in batches, on one event loop."""

    def __init__(
        self,
        on_batch: Callable[[str, int, int], None],
        in_flight: Callable[[], int],
        observers: list[PredictionObserver],
        traces: bool = False,
    ) -> None:
        """Create a batcher without waiting requests.

        Parameters
        ----------
        on_batch
            Called after each batch with the label of its version, its number of requests and of rows.
        in_flight
            A function that returns the number of requests in flight.
        observers
            The observers, which receive an event for each batch.
        traces
            Whether requests may be traced.
        """
        self._traces = traces
        self._predict_batch = _predict_traced if traces else predict_batch
        self.observers = observers
        self.on_batch = on_batch
        self._in_flight = in_flight
        self._waiting: dict[tuple[Predictor, str], list[Waiting]] = {}
        self._scheduled = False
        self._last = 0
        self._threads = ThreadPoolExecutor(_THREADS, "predict", skip_sklearn_validation)
        self._busy = 0

    def predict(
        self, predictor: Predictor, method: str, rows: Matrix, request_id: str | None = ""
    ) -> asyncio.Future[list[Any]]:
        """Return a future of the predictions, one for each row.

        Raises
        ------
        InputError, UnsupportedOperation, VerificationError
            As for `Predictor.predict`. An error of one request does not affect the others.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        request = rows, future, request_id, begin_queue() if self._traces else None
        if len(rows) <= predictor.inline_rows and self._in_flight() <= 1:
            self._run_inline(predictor, method, [request])
            return future
        self._waiting.setdefault((predictor, method), []).append(request)
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._flush)
        return future

    def _flush(self, again: bool = False) -> None:
        count = sum(map(len, self._waiting.values()))
        # Fewer requests than in the last batch: wait one iteration, as others may still be parsed.
        if not again and count < self._last:
            asyncio.get_running_loop().call_soon(self._flush, True)
            return
        self._last = count
        self._scheduled = False
        waiting, self._waiting = self._waiting, {}
        for (predictor, method), every in waiting.items():
            requests = [one for one in every if not one[1].done()]  # the others were cancelled
            if not requests:
                continue
            if sum([len(rows) for rows, _, _, _ in requests]) <= predictor.inline_rows:
                self._run_inline(predictor, method, requests)
                continue
            small = [r for r in requests if len(r[0]) <= predictor.inline_rows]
            for batch in _pack(small, predictor.inline_rows):
                self._run_inline(predictor, method, batch)
            large = [r for r in requests if len(r[0]) > predictor.inline_rows]
            for batch in _pack(large, _BATCH_ROWS):
                if self._busy < _THREADS:
                    self._run_in_pool(predictor, method, batch)
                else:
                    self._waiting.setdefault((predictor, method), []).extend(batch)

    def _run_inline(self, predictor: Predictor, method: str, batch: list[Waiting]) -> None:
        self._resolve_futures(predictor, method, batch, self._predict_batch(predictor, method, batch))

    def _run_in_pool(self, predictor: Predictor, method: str, batch: list[Waiting]) -> None:
        self._busy += 1
        work = asyncio.get_running_loop().run_in_executor(
            self._threads, self._predict_batch, predictor, method, batch
        )

        def done(predictions: asyncio.Future[list[Any]]) -> None:
            self._busy -= 1
            self._resolve_futures(predictor, method, batch, predictions.result())
            if self._waiting:
                self._flush()

        work.add_done_callback(done)

    def _resolve_futures(
        self, predictor: Predictor, method: str, batch: list[Waiting], predictions: list[Any]
    ) -> None:
        counted = sum([len(rows) for rows, _, name, _ in batch if name is not None])
        self.on_batch(predictor.label, len(batch), counted)
        for (_, future, _, _), prediction in zip(batch, predictions, strict=True):
            if future.done():  # cancelled
                continue
            if isinstance(prediction, BaseException):
                future.set_exception(prediction)
            else:
                future.set_result(prediction)
        if self.observers:
            self._notify(predictor, method, batch, predictions)

    def _notify(
        self, predictor: Predictor, method: str, batch: list[Waiting], predictions: list[Any]
    ) -> None:
        predicted = [
            (rows, prediction, request_id)
            for (rows, _, request_id, _), prediction in zip(batch, predictions, strict=True)
            if request_id is not None and not isinstance(prediction, BaseException)
        ]
        if predicted:
            parts, results, ids = zip(*predicted, strict=True)
            notify_observers(PredictionEvent(predictor, method, parts, results, ids), self.observers)


def _pack(requests: list[Waiting], most: int) -> list[list[Waiting]]:
    """Group requests, in order, into batches of at most `most` rows or of one request."""
    batches: list[list[Waiting]] = []
    size = 0
    for request in requests:
        rows = len(request[0])
        if not batches or size + rows > most:
            batches.append([])
            size = 0
        batches[-1].append(request)
        size += rows
    return batches


def predict_batch(predictor: Predictor, method: str, batch: list[Waiting]) -> list[Any]:
    """Return the predictions of each request, or its exception."""
    if len(batch) == 1:
        return [_predict_one(predictor, method, batch[0][0])]
    parts = [rows for rows, _, _, _ in batch]
    try:
        together = predictor.predict(np.concatenate(parts), method)
    except Exception:  # noqa: BLE001 - predict each request alone to find the faulty one
        return [_predict_one(predictor, method, rows) for rows in parts]
    if len(together) == len(batch):
        return [[prediction] for prediction in together]
    predictions, begin = [], 0
    for rows in parts:
        predictions.append(together[begin : begin + len(rows)])
        begin += len(rows)
    return predictions


def _predict_traced(predictor: Predictor, method: str, batch: list[Waiting]) -> Any:
    return call_model([steps for *_, steps in batch], predict_batch, predictor, method, batch)


def _predict_one(predictor: Predictor, method: str, rows: Matrix) -> Any:
    try:
        return predictor.predict(rows, method)
    except Exception as error:  # noqa: BLE001 - the future raises it for the request
        return error
