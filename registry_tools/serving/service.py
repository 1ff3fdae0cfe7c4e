"""The state and the limits of one process, which all protocols share."""

from __future__ import annotations

import itertools
import re
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from registry_tools.inference.input_limits import InputLimits
from registry_tools.inference.predictor import Predictor
from registry_tools.serving.auth import ApiKeys
from registry_tools.serving.engine.batcher import Batcher
from registry_tools.serving.engine.data_plane import DataPlane
from registry_tools.serving.engine.prediction_events import PredictionObserver
from registry_tools.serving.errors import RETRY_LATER, RequestRefused
from registry_tools.serving.observers.metrics import Metrics
from registry_tools.serving.observers.tracing import tracer_from_environment
from registry_tools.serving.settings import Settings

_DECODED_BYTES = 8  # allowed bytes of decoded values per byte of the largest body; numbers need fewer
_LARGE_BODIES = 4  # the number of largest bodies that the server holds at once
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,200}")  # the server sends it back in a header


class InferenceService:
    """The data plane of one process, with its readiness, metrics, settings and limits."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings = settings
        self.metrics = metrics
        self.keys = ApiKeys(settings.api_keys)
        self.observers: list[PredictionObserver] = []
        self.http_in_flight: Callable[[], int] = lambda: 0  # set by the HTTP server
        self.grpc_in_flight = 0
        self.tracer = tracer_from_environment()
        batcher = Batcher(
            metrics.batch,
            lambda: self.http_in_flight() + self.grpc_in_flight,
            self.observers,
            traces=self.tracer is not None,
        )
        limits = InputLimits(settings.max_rows, _DECODED_BYTES * settings.max_body)
        self.data_plane = DataPlane(batcher, limits)
        self.draining = False
        self.rollout_status: dict[str, Any] = {}
        self.reports: dict[str, Callable[[], dict[str, Any]]] = {}  # for `/model`, by observer
        self.refresh: Callable[[], Awaitable[None]] | None = None
        self.poll_soon: Callable[[], None] = lambda: None  # of all processes; set by the worker
        self._reserved = 0
        # Whether every request gets an id, for the prediction log or the access log.
        self.needs_request_ids = bool(settings.log_predictions or settings.access_log)
        self._ids = itertools.count(1)
        self._id_prefix = secrets.token_hex(6)

    def close(self) -> None:
        """Export the remaining traces."""
        if self.tracer is not None:
            self.tracer.close()

    @property
    def ready(self) -> bool:
        """Whether clients should send requests: a model is loaded, and the server is not draining."""
        return self.data_plane.current is not None and not self.draining

    def predictor(self) -> Predictor:
        """Return the predictor that serves a request from its beginning to its end.

        Raises
        ------
        RequestRefused
            503 if no model is loaded yet.
        """
        current = self.data_plane.current
        if current is None:
            raise RequestRefused(503, "no model is loaded yet", RETRY_LATER)
        return current

    def request_id(self, given: bytes) -> str:
        """Return the id that a client sent, or a new id if a log needs one, or an empty text."""
        if _REQUEST_ID.fullmatch(given):
            return given.decode("ascii")
        return f"{self._id_prefix}-{next(self._ids):x}" if self.needs_request_ids else ""

    def reserve(self, size: int) -> None:
        """Reserve memory for the bytes of a large body, until `release`.

        Raises
        ------
        RequestRefused
            503 if the bodies in flight would exceed their limit.
        """
        self._reserved += size
        if self._reserved > _LARGE_BODIES * self.settings.max_body:
            raise RequestRefused(503, "too many large requests at once: try again", RETRY_LATER)

    def release(self, size: int) -> None:
        """Release reserved memory."""
        self._reserved -= size
