"""Sign in with the name and the password of a user of the MLflow server, and sign out."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from registry_tools.console.context import Form, Here, show
from registry_tools.console.guard import read_form
from registry_tools.mlflow_store.user_credentials import User, is_password

router = APIRouter()
# A page of this console: neither another site nor a header in disguise.
_OWN_PATH = re.compile(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]*")
_WRONG = "Name or password is wrong."


def own_path(given: str) -> str:
    """Return the path of a page of this console, or else the path of its first page."""
    return given if _OWN_PATH.fullmatch(given) else "/"


@router.get("/sign-in")
def sign_in_page(console: Here, next: str = "/") -> Response:
    """Show the form."""
    if console.anonymous is not None:
        return RedirectResponse("/", 303)
    return _form(next)


@router.post("/sign-in")
def sign_in(console: Here, request: Request, form: Annotated[dict[str, str], Depends(read_form)]) -> Response:
    """Check the password with a request to the MLflow server, and begin a new session."""
    if console.anonymous is not None:
        return RedirectResponse("/", 303)
    user, target = User(form.get("name", ""), form.get("password", "")), own_path(form.get("next", ""))
    address = request.client.host if request.client is not None else ""
    # The address first: a client over its limit must not use up the attempts of a name.
    wait = console.by_address.wait_seconds(address) or console.by_name.wait_seconds(user.name)
    if wait:
        response = _form(target, f"Too many attempts. Try again in {wait} seconds.", 429)
        response.headers["Retry-After"] = str(wait)
        return response
    if not is_password(console.client, user):
        return _form(target, _WRONG, 401)
    console.by_name.forget(user.name)
    console.sessions.end(request.cookies.get(console.cookie))
    moved = RedirectResponse(target, 303)
    moved.set_cookie(
        console.cookie,
        console.sessions.begin(user),
        path="/",
        secure=console.is_secure,
        httponly=True,
        samesite="strict",
    )
    return moved


@router.post("/sign-out")
def sign_out(console: Here, request: Request, form: Form) -> Response:
    """End the session on the server, and remove the cookie."""
    console.sessions.end(request.cookies.get(console.cookie))
    moved = RedirectResponse("/sign-in", 303)
    moved.delete_cookie(console.cookie, path="/", secure=console.is_secure, httponly=True, samesite="strict")
    return moved


def _form(target: str, fault: str = "", status: int = 200) -> HTMLResponse:
    return show(None, "sign_in.html", status, target=own_path(target), fault=fault)
