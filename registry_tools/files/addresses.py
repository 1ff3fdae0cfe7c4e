"""Paths and URLs of files: the file system behind them, their names in messages, and their errors."""

from __future__ import annotations

import contextlib
import re
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import pyarrow as pa
from pyarrow import fs

from registry_tools.errors import InputError, UnsupportedOperation, first_line

_CONTAINER_SCHEMES = {"abfs", "abfss", "wasb", "wasbs"}  # CONTAINER@ACCOUNT, of Azure


def without_secrets(url: str) -> str:
    """Return a path or URL without a user's name, password or query, also in each part of a chained URL.

    Raises
    ------
    InputError
        If the URL is malformed.
    """
    if "://" not in url:
        return url
    return "::".join(_without_secrets(part) for part in re.split(r"::(?=[a-z0-9]+://)", url))


def _without_secrets(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InputError(f"a URL is malformed: {error}") from None
    host = parts.netloc if parts.scheme in _CONTAINER_SCHEMES else parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def open_filesystem(address: str) -> tuple[fs.FileSystem, str]:
    """Return the file system of a path or URL, and the path in it; Arrow's own for local files.

    Raises
    ------
    UnsupportedOperation
        If the URL needs a package that is not installed.
    """
    if "://" not in address:
        return fs.LocalFileSystem(), Path(address).absolute().as_posix()
    try:
        # Arrow refuses a URL with a space or a letter that is not ASCII.
        return fs.FileSystem.from_uri(quote(address, safe=string.punctuation))
    except pa.ArrowInvalid:  # not one of Arrow's own
        pass
    try:
        import fsspec.core

        found, path = fsspec.core.url_to_fs(address)
        local_path = _local_path(found, path)
    except ImportError as error:
        missing = "reading from there needs fsspec: install registry-pipeline[url]"
        reason = missing if error.name == "fsspec" else str(error)
        raise UnsupportedOperation(f"{without_secrets(address)}: {reason}") from None
    if local_path is not None:
        return fs.LocalFileSystem(), local_path
    return fs.PyFileSystem(fs.FSSpecHandler(found)), path


def _local_path(found: Any, path: str) -> str | None:
    """Return the local path that fsspec opens, also through a cache or `dir`; None if there is none."""
    from fsspec.implementations.cached import CachingFileSystem
    from fsspec.implementations.dirfs import DirFileSystem
    from fsspec.implementations.local import LocalFileSystem

    while isinstance(found, (CachingFileSystem, DirFileSystem)):
        if isinstance(found, DirFileSystem):
            path = f"{found.path}/{path}"
        found = found.fs
    return Path(path).as_posix() if isinstance(found, LocalFileSystem) else None


@contextlib.contextmanager
def translate_read_errors(where: str) -> Iterator[None]:
    """Turn an error of Arrow or the system into one that names the file."""
    try:
        yield
    except InputError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{where}: cannot be read: {first_line(error, 300)}") from error
