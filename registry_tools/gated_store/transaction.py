"""One transaction for several methods of MLflow's store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar

from sqlalchemy.orm import Session

SessionMaker = Callable[..., AbstractContextManager[Session]]

_SHARED: ContextVar[Session | None] = ContextVar("registry_tools_shared_session", default=None)


def joining(make_session: SessionMaker) -> SessionMaker:
    """Return a session maker that yields the shared session while there is one.

    MLflow's methods open a session and commit it. Inside `shared`, they work in the session of the caller
    instead, which commits once, or rolls back everything.
    """

    @contextmanager
    def join(read_only: bool = True) -> Iterator[Session]:
        session = _SHARED.get()
        if session is not None:
            yield session
            session.flush()
        else:
            with make_session(read_only=read_only) as session:
                yield session

    return join


def is_shared() -> bool:
    """Return whether a request works in a shared session."""
    return _SHARED.get() is not None


@contextmanager
def shared(session: Session) -> Iterator[None]:
    """Let all session makers of this request yield one session until the body ends."""
    token = _SHARED.set(session)
    try:
        yield
    finally:
        _SHARED.reset(token)
