"""The status and the line with which a page reports an error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from registry_tools.errors import (
    AccessDenied,
    InvalidReference,
    MoveRefused,
    NotFound,
    PolicyError,
    PromotionError,
    RegistryToolsError,
    RegistryUnavailable,
)

_STATUS: dict[type[RegistryToolsError], int] = {
    InvalidReference: 400,
    NotFound: 404,
    RegistryUnavailable: 503,
    PolicyError: 503,  # of the console's own file
    AccessDenied: 403,
    MoveRefused: 403,
    PromotionError: 409,
}


class Problem(Exception):
    """An error with its HTTP status, one line for the user, and the gates that refused, if any."""

    def __init__(self, status: int, message: str, gates: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.message = " ".join(message.split())
        self.gates = gates

    @classmethod
    def of(cls, error: RegistryToolsError) -> Problem:
        """Return the problem of a page that an error of the library ended."""
        status = next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 502)
        text = str(error)
        if isinstance(error, AccessDenied):
            # The command line's advice to set variables does not help on a page.
            text = text.partition("; sign in with ")[0] + "; ask for the permission, or sign in again"
        return cls(status, text)


class SignInNeeded(Exception):
    """The request belongs to no session."""
