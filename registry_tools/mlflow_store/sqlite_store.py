"""SQLite stores: whether one exists at an address, and how a new one is made."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from urllib.parse import quote, unquote

from mlflow import MlflowClient

from registry_tools.errors import RegistryUnavailable


def missing_database(uri: str) -> Path | None:
    """Return the file of an SQLite store that does not exist; None if it does, or is another store.

    Raises
    ------
    RegistryUnavailable
        If it is no address of a store, or an SQLite store in memory.
    """
    database = _database(uri)
    return None if database is None or database.is_file() else database


def check_writable(uri: str) -> Path | None:
    """Refuse an SQLite store that is read-only; return the file of a new one, as `missing_database`.

    Raises
    ------
    RegistryUnavailable
        If it is no address, an SQLite store in memory, or one that is read-only.
    """
    database = _database(uri)
    if database is None:
        return None
    folder = next(parent for parent in database.parents if parent.exists())
    if not os.access(database if database.exists() else folder, os.W_OK):
        raise RegistryUnavailable(f"the registry at {uri} cannot be written to: it is read-only")
    return None if database.exists() else database


def create(database: Path) -> None:
    """Let MLflow make its tables beside the place of a new SQLite store, then put them there.

    In place, two clients that begin at once would each run MLflow's migrations over the other's.
    """
    database.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=database.parent) as scratch:
        made = Path(scratch, database.name)
        uri = f"sqlite:///{quote(str(made))}"
        MlflowClient(uri, uri)
        # Where another was quicker, that one is the store.
        with contextlib.suppress(FileExistsError):
            os.link(made, database)


def _database(uri: str) -> Path | None:
    if ":" not in uri:
        raise RegistryUnavailable(
            f"{uri!r} is no address of a registry: write sqlite:///FILE or http://HOST:PORT"
        )
    if not uri.startswith("sqlite:"):
        return None
    if uri.removeprefix("sqlite:").lstrip("/").partition("?")[0] in {"", ":memory:"}:
        raise RegistryUnavailable(f"the registry at {uri} would end with this command: name a file")
    # As SQLAlchemy reads it: MLflow writes a space in a folder's name as %20.
    return Path(unquote(uri.removeprefix("sqlite:///").partition("?")[0])).absolute()
