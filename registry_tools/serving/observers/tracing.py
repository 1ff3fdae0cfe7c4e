"""Traces of prediction requests through OpenTelemetry, for any OTLP receiver.

Whether a server traces is decided when it starts. Spans are made after the response was sent, from
times that were taken meanwhile, so that no request waits for them.
"""

from __future__ import annotations

import logging
import os
import time
import weakref
from asyncio import Future
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from registry_tools.inference.decoder import Matrix
from registry_tools.inference.mlflow_scoring import ScoredRequest
from registry_tools.inference.predictor import Predictor
from registry_tools.serving.engine.batcher import Waiting, predict_batch
from registry_tools.serving.engine.data_plane import DataPlane

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

T = TypeVar("T")
Interval = tuple[int, int]  # nanoseconds since 1970

_log = logging.getLogger(__name__)
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_SERVER_ERROR = 500


@dataclass
class RequestTimes:
    """The times of one request, in nanoseconds since 1970."""

    began: int
    decoding: int | None = None  # its body was there from then on
    calls: list[tuple[int, Interval | None]] = field(default_factory=list)  # of the model: requested, ran
    in_pool: list[Interval] = field(default_factory=list)
    encoded: int = 0
    attributes: dict[str, Any] = field(default_factory=dict)
    route: str = ""
    code: int = 0

    def spans(self) -> list[tuple[str, Interval]]:
        """Return the steps of the request, in the order of their beginning."""
        if self.decoding is None:  # refused before
            return []
        found = [("decode", (self.decoding, self.calls[0][0] if self.calls else self.encoded))]
        last = self.encoded
        for requested, ran in self.calls:
            began, last = ran if ran is not None else (self.encoded, self.encoded)
            found.append(("queue", (requested, began)))
            if ran is not None:
                found.append(("predict", ran))
        return [*found, ("encode", (last, self.encoded))] if self.calls else found


current_times: ContextVar[RequestTimes] = ContextVar("current_times")


class TracedDataPlane(DataPlane):
    """A data plane that records when each request waits, and when the model runs for it."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._batcher.predict_batch = self._predict_batch
        self._ran: weakref.WeakKeyDictionary[Future[Any], Interval] = weakref.WeakKeyDictionary()

    def predict(
        self, predictor: Predictor, method: str, rows: Matrix, request_id: str | None = ""
    ) -> Awaitable[list[Any]]:
        """Predict as `DataPlane` does."""
        requested = time.time_ns()
        return self._record(super().predict(predictor, method, rows, request_id), requested)

    async def _record(self, predictions: Any, requested: int) -> list[Any]:
        try:
            found: list[Any] = await predictions
            return found
        finally:
            if (times := current_times.get(None)) is not None:
                times.calls.append((requested, self._ran.get(predictions)))

    def _predict_batch(self, predictor: Predictor, method: str, batch: list[Waiting]) -> list[Any]:
        began = time.time_ns()
        predictions = predict_batch(predictor, method, batch)
        ran = began, time.time_ns()
        for _, future, _ in batch:
            self._ran[future] = ran
        return predictions

    async def predict_body(
        self, predictor: Predictor, method: str, content: Any, content_type: str, request_id: str | None = ""
    ) -> ScoredRequest:
        """Predict as `DataPlane` does; MLflow's code decodes, predicts and encodes in one call."""
        requested = time.time_ns()
        times = current_times.get(RequestTimes(requested))
        before = len(times.in_pool)
        try:
            return await super().predict_body(predictor, method, content, content_type, request_id)
        finally:
            times.calls.append((requested, times.in_pool[before] if len(times.in_pool) > before else None))

    async def run_in_pool(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function in a thread, and record when it runs."""
        times = current_times.get(None)
        if times is None:
            return await super().run_in_pool(function, *arguments)

        def call() -> T:
            began = time.time_ns()
            try:
                return function(*arguments)
            finally:
                times.in_pool.append((began, time.time_ns()))

        return await super().run_in_pool(call)


class RequestTracer:
    """Turns the times of requests into spans."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self.close = provider.shutdown  # exports the spans that are left
        self._tracer = provider.get_tracer("registry_tools.serving")
        self._api = trace
        self._propagator = TraceContextTextMapPropagator()

    def export(self, times: RequestTimes, headers: Mapping[str, str]) -> None:
        """Make the spans of a request, below the span that its `traceparent` names, if any."""
        attributes = {
            "http.request.method": "POST",
            "http.route": times.route,
            "http.response.status_code": times.code,
            **times.attributes,
        }
        span = self._tracer.start_span(
            f"POST {times.route}",
            self._propagator.extract(headers),
            self._api.SpanKind.SERVER,
            attributes,
            start_time=times.began,
        )
        if span.is_recording():
            within = self._api.set_span_in_context(span)
            for name, (began, ended) in times.spans():
                self._tracer.start_span(name, within, start_time=began).end(ended)
            if times.code >= _SERVER_ERROR:
                span.set_status(self._api.StatusCode.ERROR)
        span.end()


def tracer_from_environment() -> RequestTracer | None:
    """Return a tracer as OpenTelemetry's standard variables configure it; None if they name no receiver."""
    given = next((name for name in _ENDPOINTS if os.environ.get(name)), None)
    if given is None or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        message = "%s is set, and traces need another package: pip install 'registry-pipeline[otel]'"
        _log.warning(message, given)
        return None
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create({"service.name": "registry-tools"}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)  # workers end without exit hooks
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return RequestTracer(provider)
