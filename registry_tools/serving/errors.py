"""Errors of one request, over any transport."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence

from registry_tools.errors import InputError, InputTooLarge, RegistryToolsError, UnsupportedOperation

_log = logging.getLogger(__name__)

# An address: its credentials and its path are left out.
_ADDRESS = re.compile(r"(\w+)://(?:[^/@\s]*@)?([^/\s]*)\S*")
# Folders of an absolute path or of a URL of a file; the name at its end is left.
_FOLDERS = re.compile(r"(?:\w+:///?|(?<![\w./:]))/(?!-/)(?:[^\s/'\":]+/)+")

Headers = Sequence[tuple[bytes, bytes]]

RETRY_LATER: Headers = [(b"retry-after", b"1")]


class RequestRefused(Exception):
    """A request that the server refuses; `status` is an HTTP status, which gRPC maps to its own."""

    def __init__(self, status: int, message: str, headers: Headers = ()) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers


def refusal_of(error: Exception, request: str) -> RequestRefused:
    """Return the refusal that a client gets for an error; one that nobody expects is logged, and hidden."""
    if isinstance(error, RequestRefused):
        return error
    if isinstance(error, (InputError, UnsupportedOperation)):
        status = 413 if isinstance(error, InputTooLarge) else 400
        return RequestRefused(status, getattr(error, "public", str(error)))
    _log.error("%s failed", request, exc_info=error)
    return RequestRefused(500, "the prediction failed; see the server's log")


def hide_paths(text: str) -> str:
    """Return a text for clients, with the names of files instead of their paths."""
    return _FOLDERS.sub("", text)


def public_message(error: Exception) -> str:
    """Return the reason of an error for clients, without credentials and paths."""
    text = str(error)
    if not isinstance(error, RegistryToolsError):
        text = f"{type(error).__name__}: {getattr(error, 'strerror', None) or error}"
    return hide_paths(_ADDRESS.sub(r"\1://\2", text))
