"""The keys that clients send, over whichever transport."""

from __future__ import annotations

import hmac
from collections.abc import Iterable


class ApiKeys:
    """The keys that are known; with none, everybody is let in."""

    def __init__(self, known: Iterable[str]) -> None:
        self._known = [key.encode() for key in known]

    def __bool__(self) -> bool:
        return bool(self._known)

    def allows(self, authorization: bytes, key: bytes | None = None) -> bool:
        """Tell whether a client has a key: `Bearer KEY`, or the key by itself."""
        scheme, _, token = authorization.partition(b" ")
        given = token.strip() if scheme.lower() == b"bearer" else key
        if given is None:
            return not self._known
        # All are compared, so that the time says nothing about which.
        return not self._known or sum(hmac.compare_digest(given, each) for each in self._known) > 0
