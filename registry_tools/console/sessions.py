"""The sessions of users who are signed in, and the limits on attempts to sign in. Both are in memory only."""

from __future__ import annotations

import contextlib
import hashlib
import math
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from registry_tools.mlflow_store.client import RegistryClient
from registry_tools.mlflow_store.user_credentials import User, acting_as

IDLE_SECONDS = 30 * 60
LONGEST_SECONDS = 8 * 3600
_MOST_SESSIONS = 200
_MOST_SESSIONS_OF_A_USER = 5

ATTEMPT_SECONDS = 5 * 60  # an attempt to sign in counts for this time
_MOST_KEYS = 2_000


@dataclass
class Session:
    """A user who is signed in; without a `user` the registry has no users, and the pages only show it."""

    client: RegistryClient = field(repr=False)
    user: User | None = None
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    notice: str = ""  # the result of the last action, shown once
    began: float = 0.0
    used: float = 0.0

    @contextlib.contextmanager
    def registry(self) -> Iterator[RegistryClient]:
        """Yield the client of the registry; in the body it acts as the user."""
        with acting_as(self.user) if self.user is not None else contextlib.nullcontext():
            yield self.client

    def take_notice(self) -> str:
        """Return the notice and forget it."""
        notice, self.notice = self.notice, ""
        return notice


class Sessions:
    """The sessions by the SHA-256 of their id, so that the time of a lookup tells nothing about an id."""

    def __init__(self, client: RegistryClient, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}

    def begin(self, user: User) -> str:
        """Begin a session and return its id. The oldest idle session ends if there are too many."""
        now, identifier = self._clock(), secrets.token_urlsafe(32)
        with self._lock:
            self._end_expired(now)
            own = [key for key, each in self._sessions.items() if each.user and each.user.name == user.name]
            for keys, most in ((own, _MOST_SESSIONS_OF_A_USER), (list(self._sessions), _MOST_SESSIONS)):
                if len(keys) >= most:
                    del self._sessions[min(keys, key=lambda key: self._sessions[key].used)]
            self._sessions[_key(identifier)] = Session(self._client, user, began=now, used=now)
        return identifier

    def find(self, identifier: str | None) -> Session | None:
        """Return the session with an id and mark it as used; None if there is none or it has expired."""
        if not identifier:
            return None
        now = self._clock()
        with self._lock:
            self._end_expired(now)
            session = self._sessions.get(_key(identifier))
            if session is not None:
                session.used = now
            return session

    def end(self, identifier: str | None) -> None:
        """End a session, if there is one with this id."""
        with self._lock:
            self._sessions.pop(_key(identifier or ""), None)

    def _end_expired(self, now: float) -> None:
        for key, each in list(self._sessions.items()):
            if now - each.used > IDLE_SECONDS or now - each.began > LONGEST_SECONDS:
                del self._sessions[key]


def _key(identifier: str) -> str:
    return hashlib.sha256(identifier.encode()).hexdigest()


class AttemptLimit:
    """Limits the attempts to sign in, by user name or by address of the client.

    It forgets the oldest of more than 2,000 keys. To push out a name, an attacker needs the attempts of 20
    addresses.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._lock = threading.Lock()
        self._attempts: OrderedDict[str, deque[float]] = OrderedDict()

    def wait_seconds(self, key: str) -> int:
        """Count an attempt and return 0, or return the time until the next attempt is allowed."""
        now = self._clock()
        with self._lock:
            attempts = self._attempts.setdefault(key, deque(maxlen=self._most))
            self._attempts.move_to_end(key)
            wait = attempts[0] + ATTEMPT_SECONDS - now if len(attempts) == self._most else 0.0
            if wait <= 0:
                attempts.append(now)
            if len(self._attempts) > _MOST_KEYS:
                self._attempts.popitem(last=False)
        return math.ceil(wait) if wait > 0 else 0

    def forget(self, key: str) -> None:
        """Forget the attempts of a user who signed in."""
        with self._lock:
            self._attempts.pop(key, None)
