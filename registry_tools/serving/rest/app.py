"""The ASGI application: routes, limits, keys and errors of all protocols over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import orjson

from registry_tools.serving import uvicorn_internals
from registry_tools.serving.engine.request_steps import RequestSteps, current_steps
from registry_tools.serving.errors import RETRY_LATER, Headers, RequestRefused, refusal_of
from registry_tools.serving.rest import mlflow, open_inference, openapi, predict, status, webhooks
from registry_tools.serving.rest.connection_rules import ConnectionRules, too_large
from registry_tools.serving.rest.messages import SMALL_BODY, ClientDisconnected, Reply, Request
from registry_tools.serving.rest.open_inference import pattern_of
from registry_tools.serving.service import InferenceService

Endpoint = Callable[[InferenceService, Request], Awaitable[Reply]]

_CLIENT_LEFT = 499  # nginx's code for a disconnected client, for metrics and the access log
_SWEEP_SECONDS = 0.25
_LONGEST_PAUSE = 5.0  # seconds between two parts of a body that is discarded
_NO_SNIFFING = (b"x-content-type-options", b"nosniff")
_END = {"type": "http.response.body", "body": b"", "more_body": False}


@dataclass(frozen=True)
class Route:
    """The endpoints of one path by HTTP method, and the error format of its protocol."""

    name: str
    methods: Mapping[str, Endpoint]
    error: Callable[[int, str], Reply]
    probe: bool = False  # a health check, which needs no key
    signed: bool = False  # a webhook, which is small and has a signature instead of a key


class HttpApp:
    """The ASGI application of one process."""

    def __init__(self, service: InferenceService) -> None:
        self.service = service
        self.settings = service.settings
        self._running: dict[Request, None] = {}  # in the order of their start
        self._routes = _routes()
        self._rules = ConnectionRules(service.settings)
        self._needs_ids = service.needs_request_ids
        self._keys = service.keys
        self._count_request = service.metrics.request
        self._tracer = service.tracer
        self._answer = self._handle if service.tracer is None else self._handle_traced

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        route = self._routes.get(request.path) or self._routes.get(pattern_of(request.path), _UNKNOWN)
        given = request.headers.get(b"x-request-id")
        if given is not None or self._needs_ids:
            request.id = self.service.request_id(given or b"")
        reply = await self._answer(route, request)
        unread = request.reading and request.has_unread_body
        await _send(send, request, reply, unread)
        seconds = time.perf_counter() - request.began
        self._count_request(route.name, request.version, reply.status, seconds)
        if self.settings.access_log:
            _log_access(request, reply, seconds)
        if unread:
            await self._discard(request, send)

    async def _handle_traced(self, route: Route, request: Request) -> Reply:
        """Handle a request; if it is a prediction, export its trace after the response."""
        if self._tracer is None or request.method != "POST" or route.signed:
            return await self._handle(route, request)
        steps = request.steps = RequestSteps()
        current_steps.set(steps)  # uvicorn runs each request in a separate task
        reply = await self._handle(route, request)
        if reply.status != 401:  # clients without a key must not fill the receiver
            ended = time.time_ns()
            spans = [(f"POST {route.name}", (steps.began, ended)), *steps.intervals(ended)]
            attributes = {
                "http.request.method": request.method,
                "http.route": route.name,
                "http.response.status_code": reply.status,
                "model.version": request.version,
                "model.rows": request.rows,
            }
            headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in request.headers.items()}
            asyncio.get_running_loop().call_soon(self._tracer.export, spans, attributes, headers)
        return reply

    async def _handle(self, route: Route, request: Request) -> Reply:
        try:
            headers = request.headers
            if (
                headers.get(b"host") not in self._rules.known_hosts
                or len(headers) != len(request.scope["headers"])
                or b"content-encoding" in headers
                or b"transfer-encoding" in headers
                or b"expect" in headers
            ):
                self._rules.check(request)
            endpoint = route.methods.get(request.method)
            if endpoint is None or self._keys:
                endpoint = self._authorize(route, request)
            if route.probe:
                return await endpoint(self.service, request)
            if len(self._running) >= self.settings.queue:
                raise RequestRefused(503, "too many requests are waiting: try again", RETRY_LATER)
            request.task = asyncio.current_task()
            self._running[request] = None
            try:
                message = await request.receive()
                if message.get("more_body", True) or len(message["body"]) > SMALL_BODY:
                    most = SMALL_BODY if route.signed else self.settings.max_body
                    await self._read_body(request, message, most)
                else:
                    request.body = message["body"]
                    request.reading = False
                if request.steps is not None:
                    request.steps.begin("decode")
                return await endpoint(self.service, request)
            finally:
                del self._running[request]
                if request.reserved:
                    self.service.release(request.reserved)
        except ClientDisconnected:
            return route.error(_CLIENT_LEFT, "the client disconnected")
        except asyncio.CancelledError:
            if not request.expired:
                raise
            if request.reading:
                return route.error(408, "the body did not arrive in time")
            return route.error(504, f"no response within {self.settings.timeout:g} s")
        except Exception as error:  # noqa: BLE001 - the one place that reports errors to clients
            refused = refusal_of(error, f"{request.method} {route.name}")
            reply = route.error(refused.status, refused.message)
            return Reply(reply.body, reply.status, [*reply.headers, *refused.headers])

    def _authorize(self, route: Route, request: Request) -> Endpoint:
        if not (route.probe or route.signed) and not self._keys.allows(
            request.headers.get(b"authorization", b""), request.headers.get(b"x-api-key")
        ):
            raise RequestRefused(401, "this request needs a key: send Authorization: Bearer KEY", _BEARER)
        endpoint = route.methods.get(request.method)
        if endpoint is None:
            if not route.methods:
                raise RequestRefused(404, "this address does not exist; /docs lists the addresses")
            allowed = ", ".join(sorted(route.methods))
            raise RequestRefused(
                405, f"this address accepts {allowed}", [(b"allow", allowed.encode("ascii"))]
            )
        return endpoint

    async def _read_body(self, request: Request, message: dict[str, Any], most: int) -> None:
        """Read the rest of a body of at most so many bytes, after its first part.

        Raises
        ------
        RequestRefused
            413 if the body is larger than allowed, 503 if other large bodies use all reserved memory.
        ClientDisconnected
            If the client closed the connection before the end of the body.
        """
        parts: list[bytes] = []
        size = 0
        while True:
            if message["type"] == "http.disconnect":
                raise ClientDisconnected
            part = message["body"]
            size += len(part)
            request.reading = message["more_body"]
            if size > most or request.announced_size > most:
                raise too_large(most)
            if size > SMALL_BODY:
                before, request.reserved = request.reserved, size
                self.service.reserve(size - before)
            parts.append(part)
            if not request.reading:
                break
            message = await request.receive()
        request.body = b"".join(parts)

    async def _discard(self, request: Request, send: Any) -> None:
        """Read and discard the rest of a refused body, until it ends or the client pauses.

        Most clients read the response only after they have sent the whole body. If the server closed the
        connection earlier, the client would get a reset instead of the response.
        """
        end = request.began + self.settings.timeout
        with contextlib.suppress(asyncio.TimeoutError):
            while time.perf_counter() < end:
                message = await asyncio.wait_for(request.receive(), _LONGEST_PAUSE)
                if not message.get("more_body", False):
                    break
        await send(_END)

    async def sweep(self) -> None:
        """Cancel requests that exceed the timeout, until the server ends."""
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            deadline = time.perf_counter() - self.settings.timeout
            for request in list(self._running):
                if request.began > deadline:
                    break
                if not request.expired and request.task is not None:
                    request.expired = True
                    request.task.cancel()


_BEARER: Headers = [(b"www-authenticate", b"Bearer")]


def _plain_error(status: int, message: str) -> Reply:
    return Reply(orjson.dumps({"error": message}), status)


_UNKNOWN = Route("unknown", {}, _plain_error)


def _routes() -> dict[str, Route]:
    routes = {
        path: Route(path, methods, getattr(module, "error", _plain_error), path in module.PROBES)
        for module in (mlflow, predict, open_inference, status, openapi)
        for path, methods in module.ROUTES.items()
    }
    for path, methods in webhooks.ROUTES.items():
        routes[path] = Route(path, methods, _plain_error, signed=True)
    return routes


async def _send(send: Any, request: Request, reply: Reply, unread: bool) -> None:
    """Send a response; if the body is unread, `HttpApp._discard` sends its end."""
    headers = [*reply.headers, *request.version_headers, (b"content-length", b"%d" % len(reply.body))]
    if request.id:
        headers.append((b"x-request-id", request.id.encode("ascii")))
    if reply.status != 200 or request.method != "POST":  # predictions are always JSON
        headers.append(_NO_SNIFFING)
    if unread and (request.expired or not request.has_small_body):
        headers.append((b"connection", b"close"))
    try:
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body, "more_body": unread})
    except RuntimeError as error:
        if "handler is closed" not in str(error):  # uvloop's message for a closed connection
            raise
        uvicorn_internals.mark_disconnected(send)


def _log_access(request: Request, reply: Reply, seconds: float) -> None:
    line = {
        "at": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        "client": request.client,
        "method": request.method,
        "path": request.path,
        "status": reply.status,
        "ms": round(seconds * 1000, 3),
        "rows": request.rows,
        "version": request.version,
        "request_id": request.id,
    }
    with contextlib.suppress(OSError):  # the reader of stderr may have ended
        sys.stderr.write(json.dumps(line) + "\n")
