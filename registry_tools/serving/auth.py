"""Check the API keys that clients send over HTTP and gRPC."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from pathlib import Path

from registry_tools.errors import InputError


class ApiKeys:
    """The known API keys; if there are none, every client is allowed."""

    def __init__(self, known: Iterable[str]) -> None:
        self._known = [key.encode() for key in known]

    def __bool__(self) -> bool:
        return bool(self._known)

    def allows(self, authorization: bytes, key: bytes | None) -> bool:
        """Return whether a client sent a known key, as `Authorization: Bearer KEY` or `X-API-Key: KEY`."""
        scheme, _, token = authorization.partition(b" ")
        given = [token.strip()] if scheme.lower() == b"bearer" else []
        if key is not None:
            given.append(key)
        # Compare all keys, so that the time does not reveal the matching one.
        matches = [hmac.compare_digest(sent, known) for sent in given for known in self._known]
        return not self._known or any(matches)


def read_key_file(path: str, noun: str = "key") -> tuple[str, ...]:
    """Read a key file, which has one key per line; empty lines and lines that begin with `#` are skipped.

    Parameters
    ----------
    path
        The file.
    noun
        The name of a key in messages.

    Raises
    ------
    InputError
        If the file cannot be read or has no key, or a key contains a space. No message contains a key.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")  # Windows editors write a byte-order mark
    except OSError as error:
        raise InputError(f"{path}: the {noun} file cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: the {noun} file is not UTF-8 text; save it as UTF-8") from error
    keys = []
    for number, line in enumerate(text.splitlines(), 1):
        key = line.strip()
        if not key or key.startswith("#"):
            continue
        if not key.isprintable() or " " in key:
            raise InputError(
                f"{path}, line {number}: a {noun} has no spaces or control characters; "
                "write comments on separate lines that begin with #"
            )
        keys.append(key)
    if not keys:
        raise InputError(f"{path}: the {noun} file has no {noun}; write one on each line")
    return tuple(keys)
