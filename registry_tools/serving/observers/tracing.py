"""Export traces of prediction requests with OpenTelemetry, to any OTLP receiver.

The environment decides at the start whether a server traces. The spans are created after the response,
from recorded times, so that no request waits for them.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from registry_tools.serving.engine.request_steps import Interval

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_log = logging.getLogger(__name__)
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_SERVER_ERROR = 500


class RequestTracer:
    """Exports the steps of requests as spans."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self.close = provider.shutdown  # exports the remaining spans
        self._tracer = provider.get_tracer("registry_tools.serving")
        self._api = trace
        self._propagator = TraceContextTextMapPropagator()

    def export(
        self, spans: Sequence[tuple[str, Interval]], attributes: Mapping[str, Any], headers: Mapping[str, str]
    ) -> None:
        """Export the span of a request and the spans of its steps; `traceparent` names the parent span.

        Parameters
        ----------
        spans
            The name and the interval of the request, then those of its steps.
        attributes
            The attributes of the request's span.
        headers
            The headers of the request.
        """
        (title, (began, ended)), *steps = spans
        span = self._tracer.start_span(
            title, self._propagator.extract(headers), self._api.SpanKind.SERVER, attributes, start_time=began
        )
        within = self._api.set_span_in_context(span)
        for name, (step_began, step_ended) in steps:
            self._tracer.start_span(name, within, start_time=step_began).end(step_ended)
        if attributes["http.response.status_code"] >= _SERVER_ERROR:
            span.set_status(self._api.StatusCode.ERROR)
        span.end(ended)


def tracer_from_environment() -> RequestTracer | None:
    """Return a tracer by OpenTelemetry's standard variables; None if they name no receiver."""
    given = next((name for name in _ENDPOINTS if os.environ.get(name)), None)
    if given is None or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        message = "%s is set, but traces need another package: pip install 'registry-pipeline[otel]'"
        _log.warning(message, given)
        return None
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create({"service.name": "registry-tools"}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)  # workers end without exit hooks
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return RequestTracer(provider)
