"""The data plane: holds the current predictor, and predicts requests of any transport."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from registry_tools.errors import InputError
from registry_tools.inference.decoder import Matrix
from registry_tools.inference.input_limits import InputLimits, check_row_count
from registry_tools.inference.mlflow_scoring import ScoredRequest
from registry_tools.inference.predictor import Predictor
from registry_tools.serving.engine.batcher import Batcher
from registry_tools.serving.engine.prediction_events import PredictionEvent, notify_observers
from registry_tools.serving.engine.request_steps import begin_queue, call_model

T = TypeVar("T")

# Bytes; larger bodies are parsed and encoded in threads.
LARGE_BODY = 1 << 18


class DataPlane:
    """The data plane of one worker."""

    def __init__(self, batcher: Batcher, limits: InputLimits) -> None:
        """Store the batcher for matrices of numbers, and the limits of a request."""
        self.current: Predictor | None = None
        self.limits = limits
        self._batcher = batcher
        self._threads = ThreadPoolExecutor(2, "data-plane")

    def predict(
        self, predictor: Predictor, method: str, rows: Matrix, request_id: str | None = ""
    ) -> Awaitable[list[Any]]:
        """Predict a matrix of rows, in one batch with other waiting requests.

        A request for several outputs passes its id with the first output and None with the others, so
        that its rows are counted and observed once.

        Raises
        ------
        InputError
            If there are too many rows, or the model cannot predict them.
        """
        check_row_count(len(rows), self.limits)
        return self._batcher.predict(predictor, method, rows, request_id)

    async def predict_body(
        self, predictor: Predictor, method: str, content: Any, content_type: str, request_id: str | None = ""
    ) -> ScoredRequest:
        """Predict a request that MLflow's own code parses, without batching, in a thread.

        Raises
        ------
        InputError, UnsupportedOperation
            As for `MlflowScoring.score_request`.
        """
        score = predictor.mlflow_scoring.score_request
        scored: ScoredRequest = await self.run_in_pool(
            call_model, [begin_queue()], score, content, content_type, method, self.limits
        )
        self._batcher.on_batch(predictor.label, 1, scored.count if request_id is not None else 0)
        if self._batcher.observers and request_id is not None and scored.is_per_row:
            await self.run_in_pool(self._notify, predictor, method, scored, request_id)
        return scored

    def _notify(self, predictor: Predictor, method: str, scored: ScoredRequest, request_id: str) -> None:
        event = PredictionEvent(predictor, method, [scored.table], [scored.predictions], [request_id])
        notify_observers(event, self._batcher.observers)

    async def predict_json(
        self, predictor: Predictor, method: str, content: Any, request_id: str | None = ""
    ) -> list[Any]:
        """Return the predictions for JSON of MLflow's protocol, one for each row.

        Raises
        ------
        InputError, UnsupportedOperation
            As for `MlflowScoring.score_request`, or if the model does not return one prediction for each
            row.
        """
        scored = await self.predict_body(predictor, method, content, "application/json", request_id)
        if not scored.is_per_row:
            raise InputError("this model does not predict one value for each row: use /invocations")
        predictions: list[Any] = scored.predictions
        return predictions

    async def run(self, is_large: bool, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function in a thread if the request is large, and directly otherwise."""
        return await self.run_in_pool(function, *arguments) if is_large else function(*arguments)

    async def run_in_pool(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function in a thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, function, *arguments)
