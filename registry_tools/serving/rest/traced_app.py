"""The application, with the times of each prediction request taken for its trace."""

from __future__ import annotations

import time
from typing import Any

from registry_tools.serving.observers.tracing import RequestTimes, RequestTracer, current_times
from registry_tools.serving.rest.app import Endpoint, HttpApp, Route
from registry_tools.serving.rest.messages import Reply, Request
from registry_tools.serving.service import InferenceService


def create_app(service: InferenceService) -> HttpApp:
    """Return the application of one process; it traces if the service has a tracer."""
    return TracedHttpApp(service, service.tracer) if service.tracer is not None else HttpApp(service)


class TracedHttpApp(HttpApp):
    """The application of a server that traces."""

    def __init__(self, service: InferenceService, tracer: RequestTracer) -> None:
        super().__init__(service)
        self._tracer = tracer
        self._count_request = self._record_response
        self._routes = {path: _traced(route) for path, route in self._routes.items()}

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Answer one request, and then export its trace if it is one for predictions."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await super().__call__(scope, receive, send)
            return
        times = RequestTimes(time.time_ns())
        current_times.set(times)  # uvicorn runs each request in a task of its own
        await super().__call__(scope, receive, send)
        if times.code == 401:  # clients without a key fill no receiver
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        self._tracer.export(times, headers)

    def _record_response(self, route: str, version: str, code: int, seconds: float) -> None:
        self.service.metrics.request(route, version, code, seconds)
        if (times := current_times.get(None)) is not None:
            times.route, times.code = route, code


def _traced(route: Route) -> Route:
    methods = {method: _timed(endpoint) for method, endpoint in route.methods.items()}
    return Route(route.name, methods, route.error, route.probe)


def _timed(endpoint: Endpoint) -> Endpoint:
    async def call(service: InferenceService, request: Request) -> Reply:
        times = current_times.get(None)
        if times is None:
            return await endpoint(service, request)
        times.decoding = time.time_ns()
        try:
            return await endpoint(service, request)
        finally:
            times.encoded = time.time_ns()
            times.attributes = {"model.version": request.version, "model.rows": request.rows}

    return call
