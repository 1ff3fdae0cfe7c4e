"""How a registry is reached, and what its errors mean."""

from __future__ import annotations

import contextlib
import getpass
import importlib
import os
import re
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any

import mlflow
import mlflow.exceptions
import sqlalchemy.exc
from mlflow import MlflowClient

from registry_tools.errors import AccessDenied, RegistryToolsError, RegistryUnavailable, first_line
from registry_tools.mlflow_store import sqlite_store

_DENIED = {"PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"}


def connect(tracking_uri: str | None = None) -> MlflowClient:
    """Return a client of an existing registry.

    Parameters
    ----------
    tracking_uri
        The address of its runs and of its models. None takes the runs from `mlflow.set_tracking_uri`,
        then `MLFLOW_TRACKING_URI`, then `sqlite:///mlflow.db`; and the models from the same address,
        unless `mlflow.set_registry_uri` or `MLFLOW_REGISTRY_URI` names another.

    Raises
    ------
    RegistryUnavailable
        If it is an SQLite file that does not exist (MLflow would make an empty one), or no URI
        of a registry at all.
    """
    uri = tracking_uri or mlflow.get_tracking_uri()
    registry_uri = tracking_uri or mlflow.get_registry_uri()
    for each, variable in ((uri, "MLFLOW_TRACKING_URI"), (registry_uri, "MLFLOW_REGISTRY_URI")):
        # Before there is a client: making one makes the file.
        missing = sqlite_store.missing_database(each)
        if missing is not None:
            raise RegistryUnavailable(
                f"no registry at {each} (looked in {missing.parent}): train a model first, or name "
                f"another with --tracking-uri or {variable}"
            )
    return _open(uri, registry_uri)


def connect_or_create(uri: str) -> MlflowClient:
    """Return a client of a registry; an SQLite store is made if its folder exists.

    Raises
    ------
    RegistryUnavailable
        If it cannot be made there, or it is no URI of a registry at all.
    """
    new = sqlite_store.check_writable(uri)
    if new is not None:
        if not new.parent.is_dir():
            raise RegistryUnavailable(
                f"no registry at {uri}, and no folder {new.parent} to make one in: make the folder, or "
                "name another registry"
            )
        sqlite_store.create(new)
    return _open(uri, uri)


def _open(uri: str, registry_uri: str) -> MlflowClient:
    with translate_errors(uri):
        # Both: without the second, MLflow takes the registry from MLFLOW_REGISTRY_URI.
        return MlflowClient(tracking_uri=uri, registry_uri=registry_uri)


def registry_address(client: MlflowClient) -> str:
    """Return the address of a client's models; that of its runs may be another."""
    return str(getattr(client, "_registry_uri", None) or client.tracking_uri)


@contextlib.contextmanager
def translate_errors(where: str) -> Iterator[None]:
    """Turn MLflow's errors into ours; `where` is the registry that they came from."""
    try:
        yield
    except mlflow.exceptions.MlflowException as error:
        raise _translate(error, where) from error
    except sqlalchemy.exc.SQLAlchemyError as error:
        # MLflow lets through what its database says while it is being opened.
        reason = first_line(error.args[0] if error.args else error)
        raise RegistryUnavailable(f"the registry at {where} cannot be used: {reason}") from error


def import_store(tracking_uri: str | None) -> None:
    """Import MLflow's modules for a registry, which it imports itself when it is first used."""
    if not (tracking_uri or mlflow.get_tracking_uri()).startswith("http"):
        importlib.import_module("mlflow.store.model_registry.sqlalchemy_store")
        importlib.import_module("mlflow.store.tracking.sqlalchemy_store")


def upsert(write: Callable[[], object]) -> None:
    """Write a tag, an alias or a dataset; once more, where another client made the same in that moment.

    MLflow looks whether it is there, and inserts it if not: of two that do so at once the database
    refuses one. By then it is there, and the second call changes it.
    """
    try:
        write()
    except mlflow.exceptions.MlflowException as error:
        if error.error_code != "BAD_REQUEST":
            raise
        write()


def fetch_pages(search: Callable[[int, str | None], Any], limit: int | None, size: int) -> list[Any]:
    """Return what MLflow finds page by page, `limit` of them at most.

    Parameters
    ----------
    search
        Takes how many are wanted and the token of the page, and returns MLflow's `PagedList`.
    limit
        None returns all.
    size
        The most that MLflow gives at once.
    """
    found: list[Any] = []
    token = None
    while limit is None or len(found) < limit:
        page = search(size if limit is None else min(limit - len(found), size), token)
        found += page
        token = page.token
        if not token:
            break
    return found


def iso_time(milliseconds: int) -> str:
    """Return a time of MLflow, in milliseconds since 1970, as ISO 8601 in UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, timezone.utc).isoformat(timespec="milliseconds")


def quote(text: str) -> str:
    """Quote a text for MLflow's search language, which knows both quotes and no escape."""
    return f"'{text}'" if "'" not in text else f'"{text}"'


def is_missing(error: mlflow.exceptions.MlflowException) -> bool:
    """Whether MLflow's error says that something does not exist."""
    return error.error_code == "RESOURCE_DOES_NOT_EXIST"


def _translate(error: mlflow.exceptions.MlflowException, where: str) -> RegistryToolsError:
    text = " ".join(str(error).split())
    if error.error_code in _DENIED or "error code 401" in text or "error code 403" in text:
        return AccessDenied(
            f"{where} refused this: {text[:200]}; sign in with MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, or ask for the permission"
        )
    if "readonly database" in text or "unable to open database" in text:
        return RegistryUnavailable(
            f"the registry at {where} cannot be written to: check the permissions of file and folder"
        )
    failing = re.search(r"too many (5\d\d) error responses", text)
    if failing:
        return RegistryUnavailable(
            f"the registry at {where} runs, but cannot do its work ({failing[1]}): see in its log "
            "whether it reaches its database and its files, then repeat this"
        )
    if "failed with exception" in text or error.error_code == "TEMPORARILY_UNAVAILABLE":
        return RegistryUnavailable(
            f"the registry at {where} is unavailable: check that it and its database run, or "
            "set MLFLOW_TRACKING_URI to another"
        )
    return RegistryToolsError(f"the registry at {where} responded: {text[:300]}")


def current_user() -> str:
    """Return the user name that signs in to the registry, else the login name, for the history."""
    signed_in = os.environ.get("MLFLOW_TRACKING_USERNAME")
    if signed_in:
        return signed_in
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
