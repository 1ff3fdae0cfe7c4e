"""Turn the errors of a request into messages for its client, without a transport."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence

from registry_tools.errors import InputError, InputTooLarge, RegistryToolsError, UnsupportedOperation

_log = logging.getLogger(__name__)

# An address; `public_message` removes its credentials and its path.
_ADDRESS = re.compile(r"(\w+)://(?:[^/@\s]*@)?([^/\s]*)\S*")
# The folders of an absolute path or a file URL, without the file name.
_FOLDERS = re.compile(r"(?:\w+:///?|(?<![\w./:]))/(?!-/)(?:[^\s/'\":]+/)+")

Headers = Sequence[tuple[bytes, bytes]]

RETRY_LATER: Headers = [(b"retry-after", b"1")]


class RequestRefused(Exception):
    """A request that the server refuses; `status` is an HTTP status, which gRPC translates."""

    def __init__(self, status: int, message: str, headers: Headers = ()) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers


def refusal_of(error: Exception, request: str) -> RequestRefused:
    """Return the refusal for an error; log an unexpected error, and hide it from the client."""
    if isinstance(error, RequestRefused):
        return error
    if isinstance(error, (InputError, UnsupportedOperation)):
        status = 413 if isinstance(error, InputTooLarge) else 400
        return RequestRefused(status, getattr(error, "public", str(error)))
    _log.error("%s failed", request, exc_info=error)
    return RequestRefused(500, "the prediction failed; see the server's log")


def hide_paths(text: str) -> str:
    """Replace the paths of files in a text by the file names."""
    return _FOLDERS.sub("", text)


def public_message(error: Exception) -> str:
    """Return the message of an error for clients, without credentials and paths."""
    text = str(error)
    if not isinstance(error, RegistryToolsError):
        text = f"{type(error).__name__}: {getattr(error, 'strerror', None) or error}"
    return hide_paths(_ADDRESS.sub(r"\1://\2", text))
