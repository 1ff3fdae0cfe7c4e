"""The state of one console, and the session that a request belongs to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.responses import HTMLResponse

from registry_tools.console import render
from registry_tools.console.guard import check_token, read_form
from registry_tools.console.problem import Problem, SignInNeeded
from registry_tools.console.sessions import AttemptLimit, Session, Sessions
from registry_tools.mlflow_store.client import RegistryClient
from registry_tools.policy.definition import Policy
from registry_tools.policy.policy_file import find_policy

_ATTEMPTS_OF_A_NAME, _ATTEMPTS_OF_AN_ADDRESS = 10, 100


@dataclass(frozen=True)
class Console:
    """The settings and the sessions of one console."""

    registry: str  # the address of the MLflow server, or of a database
    client: RegistryClient  # without a user of its own
    sessions: Sessions
    anonymous: Session | None  # the session of everybody, if the registry has no users
    origins: tuple[str, ...]  # under which browsers reach the console
    by_name: AttemptLimit = field(default_factory=lambda: AttemptLimit(_ATTEMPTS_OF_A_NAME))
    by_address: AttemptLimit = field(default_factory=lambda: AttemptLimit(_ATTEMPTS_OF_AN_ADDRESS))

    @property
    def is_secure(self) -> bool:
        """Whether browsers reach the console by HTTPS only."""
        return all(origin.startswith("https:") for origin in self.origins)

    @property
    def cookie(self) -> str:
        """The name of the cookie; the prefix forbids browsers to take it from another host."""
        return "__Host-registry-console" if self.is_secure else "registry-console"

    def policy(self) -> Policy | None:
        """Read the policy again, so that a change needs no restart; None if there is none."""
        return find_policy()


def console_of(request: Request) -> Console:
    """Return the console that received a request."""
    found: Console = request.app.state.console
    return found


def session_of(request: Request) -> Session:
    """Return the session of a request.

    Raises
    ------
    SignInNeeded
        If it has none.
    """
    console = console_of(request)
    session = console.anonymous or console.sessions.find(request.cookies.get(console.cookie))
    if session is None:
        raise SignInNeeded
    return session


async def signed_form(request: Request) -> dict[str, str]:
    """Return the fields of a form that a page of this session sent.

    Raises
    ------
    SignInNeeded, Problem
        If the request has no session, nobody is signed in, or the form is not one of the session.
    """
    session = session_of(request)
    if session.user is None:
        raise Problem(403, "this registry has no users, so its console only shows it")
    form = await read_form(request)
    check_token(form.get("csrf", ""), session.csrf)
    return form


Visitor = Annotated[Session, Depends(session_of)]
Form = Annotated[dict[str, str], Depends(signed_form)]
Here = Annotated[Console, Depends(console_of)]


def show(session: Session | None, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """Return a page with its menu."""
    shown = {
        "session": session,
        "user": session.user.name if session is not None and session.user is not None else None,
        "csrf": session.csrf if session is not None else "",
        "notice": session.take_notice() if session is not None else "",
    }
    return HTMLResponse(render.page(template, **shown, **values), status)
