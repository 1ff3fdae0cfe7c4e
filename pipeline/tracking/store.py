"""The tracking store: its address, and checks before MLflow opens it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

import mlflow
from mlflow import MlflowClient

from registry_tools.errors import RegistryUnavailable


def address() -> str:
    """Return the address of the store that runs go to."""
    return mlflow.get_tracking_uri()


def check_address(where: str) -> Path | None:
    """Refuse at once a store that MLflow would wait for, or forget; return a new one's path.

    Raises
    ------
    RegistryUnavailable
        If it is no address, an SQLite store in memory, or a new one in a folder that is read-only.
    """
    if ":" not in where:
        raise RegistryUnavailable(
            f"{where!r} is no address of a registry: write sqlite:///FILE or http://HOST:PORT"
        )
    if not where.startswith("sqlite:"):
        return None
    name = where.removeprefix("sqlite:").lstrip("/").partition("?")[0]
    if name in {"", ":memory:"}:
        raise RegistryUnavailable(f"the registry at {where} would end with this command: name a file")
    database = Path(where.removeprefix("sqlite:///").partition("?")[0]).absolute()
    folder = next(parent for parent in database.parents if parent.exists())
    if not os.access(database if database.exists() else folder, os.W_OK):
        raise RegistryUnavailable(f"the registry at {where} cannot be written to: it is read-only")
    return None if database.exists() else database


def create_sqlite_store(database: Path) -> None:
    """Let MLflow make its tables beside the place of a new SQLite store, then put them there.

    In place, two trainings that begin at once would each run MLflow's migrations over the other's.
    """
    database.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=database.parent) as scratch:
        made = Path(scratch, database.name)
        MlflowClient(f"sqlite:///{made}")
        # Where another was quicker, that one is the store.
        with contextlib.suppress(FileExistsError):
            os.link(made, database)
