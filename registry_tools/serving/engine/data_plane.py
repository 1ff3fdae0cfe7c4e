"""What answers, whatever the protocol: the version of the moment, and rows for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from registry_tools.errors import InputError
from registry_tools.inference.decoder import Matrix
from registry_tools.inference.mlflow_scoring import ScoredRequest, refuse_too_many
from registry_tools.inference.predictor import Predictor
from registry_tools.serving.engine.batcher import Batcher
from registry_tools.serving.engine.prediction_events import (
    PredictionEvent,
    PredictionObserver,
    notify_observers,
)

T = TypeVar("T")

# What reads or writes a body larger than this does so off the event loop.
LARGE_BODY = 1 << 18


class DataPlane:
    """The data plane of one worker, without a transport."""

    def __init__(
        self,
        on_batch: Callable[[Predictor, int, int], None],
        in_flight: Callable[[], int],
        observers: list[PredictionObserver],
        max_rows: int,
    ) -> None:
        """Take what goes with every answer, as `Batcher`, and the most rows of a request."""
        self.current: Predictor | None = None
        self._batcher = Batcher(on_batch, in_flight, observers)
        self._on_batch = on_batch
        self._observers = observers
        self._max_rows = max_rows
        self._threads = ThreadPoolExecutor(2, "read")

    def predict(
        self, predictor: Predictor, method: str, rows: Matrix, request_id: str | None = ""
    ) -> Awaitable[list[Any]]:
        """Answer a matrix of rows together with others that wait.

        A request that asks for more than one answer to its rows has an id with the first, and None
        with the others: its rows are counted, and shown to who watches, once.

        Raises
        ------
        InputError
            If there are more than allowed, or the model cannot take them.
        """
        refuse_too_many(len(rows), self._max_rows)
        return self._batcher.predict(predictor, method, rows, request_id)

    async def predict_body(
        self,
        predictor: Predictor,
        method: str,
        content: Any,
        content_type: str,
        request_id: str | None = "",
    ) -> ScoredRequest:
        """Answer a request that MLflow's own code reads, alone and off the event loop.

        Raises
        ------
        InputError, UnsupportedOperation
            As `MlflowReader.answer`.
        """
        read = await self.run_in_pool(
            predictor.mlflow_scoring.score_request, content, content_type, method, self._max_rows
        )
        self._on_batch(predictor, 1, read.count if request_id is not None else 0)
        if self._observers and request_id is not None and isinstance(read.predictions, list):
            await self.run_in_pool(self._notify, predictor, method, read, request_id)
        return read

    def _notify(
        self, predictor: Predictor, method: str, read: ScoredRequest, request_id: str
    ) -> None:
        event = PredictionEvent(predictor, method, [read.table], [read.predictions], [request_id])
        notify_observers(event, self._observers)

    async def predict_json(
        self, predictor: Predictor, method: str, content: Any, request_id: str | None = ""
    ) -> list[Any]:
        """Return the answers to the JSON of MLflow's protocol, one a row.

        Raises
        ------
        InputError, UnsupportedOperation
            As `MlflowReader.answer`, and if the answers are not a list.
        """
        read = await self.predict_body(predictor, method, content, "application/json", request_id)
        if not isinstance(read.predictions, list):
            raise InputError("this model does not predict one value a row: use /invocations")
        return read.predictions

    async def run_in_pool(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function in a thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, function, *arguments)
