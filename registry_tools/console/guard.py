"""The checks before each request, and the headers of each response, as OWASP recommends."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Collection
from typing import Any
from urllib.parse import parse_qs

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse

from registry_tools.console.problem import Problem

POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
# A report holds its own styles and pictures. The sandbox gives it an origin of its own.
REPORT_POLICY = (
    "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # With `no-referrer`, browsers would send `Origin: null` with each form.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_LARGEST_FORM = 16 * 1024
_MOST_FIELDS = 10
_FORM_SECONDS = 10


class Guard:
    """An ASGI application that checks `Host` and `Origin` before the pages, and adds headers."""

    def __init__(self, app: Any, origins: Collection[str]) -> None:
        self._app = app
        self._origins = frozenset(origins)
        self._hosts = {origin.partition("://")[2] for origin in origins}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        # Proxies and containers ask for the health under any name.
        is_health = scope["path"] == "/health"
        fault = None if is_health else self._fault(scope["method"], Headers(scope=scope))
        if scope["method"] == "HEAD":  # the server leaves out the body
            scope = {**scope, "method": "GET"}
        app = PlainTextResponse(fault[1] + "\n", fault[0]) if fault is not None else self._app
        await app(scope, receive, send_with_headers)

    def _fault(self, method: str, headers: Headers) -> tuple[int, str] | None:
        """Return the status and one line if a request must be refused."""
        # A site of an attacker can let its name resolve to this machine; then `Host` has that name.
        if headers.getlist("host") and headers["host"].lower() not in self._hosts:
            return 400, "the Host of this request is not a name of the console: see --public-url"
        if not headers.getlist("host"):
            return 400, "the request has no Host"
        if method in {"GET", "HEAD"}:
            return None
        # Browsers send the origin with each form.
        if headers.get("origin", "").lower() not in self._origins:
            return 403, "this form was not sent by a page of the console: open the console and repeat it"
        return None


async def read_form(request: Request) -> dict[str, str]:
    """Return the fields of a small form.

    Raises
    ------
    Problem
        If the body is no form, is too large, or does not arrive in time.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise Problem(415, "the body is not a form")
    try:
        body = await asyncio.wait_for(_read_body(request), _FORM_SECONDS)
        fields = parse_qs(
            body.decode("ascii"), keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="strict"
        )
    except asyncio.TimeoutError as error:
        raise Problem(408, "the form did not arrive in time: send it again") from error
    except ValueError as error:  # too many fields, or no UTF-8
        raise Problem(400, "the form cannot be read") from error
    return {name: values[0] for name, values in fields.items()}


async def _read_body(request: Request) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _LARGEST_FORM:
            raise Problem(413, f"the form has more than {_LARGEST_FORM:,} bytes: shorten the reason")
    return body


def check_token(given: str, expected: str) -> None:
    """Compare the token of a form with that of the session, in constant time.

    Raises
    ------
    Problem
        If they differ.
    """
    if not secrets.compare_digest(given.encode(), expected.encode()):
        raise Problem(403, "this form belongs to another session: open the page again and repeat it")
