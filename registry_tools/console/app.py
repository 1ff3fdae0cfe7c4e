"""The application: its routes, and the page or redirect for each error."""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException

from registry_tools.console import actions, pages, render, sign_in
from registry_tools.console.context import Console, show
from registry_tools.console.guard import Guard
from registry_tools.console.problem import Problem, SignInNeeded
from registry_tools.console.sessions import Session
from registry_tools.errors import RegistryToolsError

_log = logging.getLogger(__name__)
_TYPES = {"style.css": "text/css", "icon.svg": "image/svg+xml"}


def create_app(console: Console) -> Guard:
    """Return the application of a console."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.state.console = console
    for each in (sign_in, pages, actions):
        app.include_router(each.router)
    for name, kind in _TYPES.items():
        _add_file(app, name, kind)
    app.add_api_route("/health", _health)
    for error, handler in _HANDLERS.items():
        app.add_exception_handler(error, handler)
    return Guard(app, console.origins)


def _add_file(app: FastAPI, name: str, kind: str) -> None:
    content = render.static_file(name)
    headers = {"Cache-Control": "max-age=300"}
    app.add_api_route(f"/{name}", lambda: PlainTextResponse(content, media_type=kind, headers=headers))


def _health() -> PlainTextResponse:
    return PlainTextResponse("OK\n")


def _ask_to_sign_in(request: Request, _: Exception) -> Response:
    if request.method == "GET":
        page = quote(request.scope["path"]) + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"/sign-in?{urlencode({'next': page})}", 303)
    problem = Problem(401, "your session has ended and nothing was changed: sign in, and repeat it")
    return _page(request, problem)


def _library_error(request: Request, error: Any) -> Response:
    return _page(request, Problem.of(error))


def _http_error(request: Request, error: Any) -> Response:
    text = {404: "there is no such page", 405: "this page does not accept that"}
    return _page(request, Problem(error.status_code, text.get(error.status_code, str(error.detail))))


def _invalid(request: Request, _: Exception) -> Response:
    return _page(request, Problem(404, "there is no such page: the address has a part that is not a number"))


def _unexpected(request: Request, error: Exception) -> Response:
    # Starlette raises the error again after the response, and the server logs it with its traceback.
    return _page(request, Problem(500, f"unexpected {type(error).__name__}: see the log of the console"))


def _page(request: Request, problem: Any) -> Response:
    console: Console = request.app.state.console
    session: Session | None = console.anonymous or console.sessions.find(request.cookies.get(console.cookie))
    return show(session, "problem.html", problem.status, problem=problem)


_HANDLERS: dict[Any, Any] = {
    SignInNeeded: _ask_to_sign_in,
    Problem: _page,
    RegistryToolsError: _library_error,
    HTTPException: _http_error,
    RequestValidationError: _invalid,
    Exception: _unexpected,
}
