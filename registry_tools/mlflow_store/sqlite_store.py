"""Check whether an address is an existing SQLite store, and create new stores."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from pathlib import Path
from urllib.parse import quote, unquote

from mlflow import MlflowClient

from registry_tools.errors import RegistryUnavailable


def missing_database(uri: str) -> Path | None:
    """Return the file of a missing SQLite store; None if the store exists or is not SQLite.

    Raises
    ------
    RegistryUnavailable
        If the text is not the address of a store, or names an SQLite store in memory.
    """
    database = _database(uri)
    return None if database is None or database.is_file() else database


def check_writable(uri: str) -> Path | None:
    """Refuse a read-only SQLite store; return the file of a missing one, as `missing_database` does.

    Raises
    ------
    RegistryUnavailable
        If the text is not the address of a store, or names an SQLite store in memory or a read-only
        one.
    """
    database = _database(uri)
    if database is None:
        return None
    folder = next(parent for parent in database.parents if parent.exists())
    if not os.access(database if database.exists() else folder, os.W_OK):
        raise RegistryUnavailable(f"the registry at {uri} cannot be written to: it is read-only")
    return None if database.exists() else database


def create(database: Path) -> None:
    """Create an SQLite store: MLflow creates its tables in a temporary file, which is then moved.

    If two clients let MLflow create the tables in place at the same time, their migrations collide.
    """
    database.parent.mkdir(parents=True, exist_ok=True)
    # Windows does not delete the file while MLflow has it open.
    with tempfile.TemporaryDirectory(dir=database.parent, ignore_cleanup_errors=True) as scratch:
        made = Path(scratch, database.name)
        uri = f"sqlite:///{quote(str(made))}"
        MlflowClient(uri, uri)
        # If another client was faster, keep its store.
        try:
            os.link(made, database)
        except FileExistsError:
            return
        except OSError:  # a file system without hard links
            _move(made, database)


def _move(made: Path, database: Path) -> None:
    """Move a file to a place where none is; the clients that do so take turns."""
    if sys.platform == "win32":
        with contextlib.suppress(FileExistsError):
            made.rename(database)  # on Windows, a rename never replaces a file
        return
    import fcntl  # Windows has no such module

    folder = os.open(database.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        if not database.exists():
            made.replace(database)
    finally:
        os.close(folder)


def _database(uri: str) -> Path | None:
    if ":" not in uri:
        raise RegistryUnavailable(
            f"{uri!r} is not the address of a registry: write sqlite:///FILE or http://HOST:PORT"
        )
    if not uri.startswith("sqlite:"):
        return None
    if uri.removeprefix("sqlite:").lstrip("/").partition("?")[0] in {"", ":memory:"}:
        raise RegistryUnavailable(f"the registry at {uri} would end with this command: name a file")
    # Decode the path as SQLAlchemy does: MLflow writes a space in a folder's name as %20.
    return Path(unquote(uri.removeprefix("sqlite:///").partition("?")[0])).absolute()
