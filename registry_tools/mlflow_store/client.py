"""Connect to a registry, and translate MLflow's errors into those of this package."""

from __future__ import annotations

import contextlib
import getpass
import importlib
import os
import re
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Generic, TypeVar

import mlflow
import mlflow.exceptions
import sqlalchemy.exc
from mlflow import MlflowClient
from mlflow.store.entities import PagedList
from mlflow.utils.credentials import read_mlflow_creds

from registry_tools.errors import (
    AccessDenied,
    MoveRefused,
    RegistryToolsError,
    RegistryUnavailable,
    first_line,
)
from registry_tools.mlflow_store import sqlite_store

T = TypeVar("T")

RegistryClient = MlflowClient  # the type, for layers that do not import mlflow

# The user for whom this thread works, if the process serves several; see `user_credentials`.
acting_user: ContextVar[str] = ContextVar("acting_user", default="")
# If this variable is set, a client of a server reads and writes files only through that server.
SERVER_FILES_VARIABLE = "REGISTRY_TOOLS_SERVER_FILES_ONLY"

_DENIED = {"PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"}
# MLflow reports a missing alias as an invalid value.
_MISSING = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}


def connect(tracking_uri: str | None = None) -> MlflowClient:
    """Return a client for an existing registry.

    Parameters
    ----------
    tracking_uri
        The address for runs and models. If None, the runs are at the address from
        `mlflow.set_tracking_uri`, `MLFLOW_TRACKING_URI` or else `sqlite:///mlflow.db`. The models are
        at the same address, unless `mlflow.set_registry_uri` or `MLFLOW_REGISTRY_URI` sets another.

    Raises
    ------
    RegistryUnavailable
        If the address is an SQLite file that does not exist (MLflow would create an empty one), or is
        not the URI of a registry.
    """
    uri, registry_uri = _addresses(tracking_uri)
    for each, variable in ((uri, "MLFLOW_TRACKING_URI"), (registry_uri, "MLFLOW_REGISTRY_URI")):
        # Check before creating a client: the client creates a missing file.
        missing = sqlite_store.missing_database(each)
        if missing is not None:
            raise RegistryUnavailable(
                f"no registry at {each} (looked in {missing.parent}): train a model first, or name "
                f"another with --tracking-uri or {variable}"
            )
    if os.environ.get(SERVER_FILES_VARIABLE) and uri.startswith("http"):
        importlib.import_module("registry_tools.mlflow_store.user_credentials").only_from_server()
    with translate_errors(uri):
        # Pass both: without `registry_uri`, MLflow reads it from MLFLOW_REGISTRY_URI.
        return MlflowClient(tracking_uri=uri, registry_uri=registry_uri)


def connect_or_create(tracking_uri: str | None) -> MlflowClient:
    """Return a client for a registry; create an SQLite store if its folder exists.

    Parameters
    ----------
    tracking_uri
        The address of its runs and of its models; None as for `connect`.

    Raises
    ------
    RegistryUnavailable
        If the store cannot be created, or the address is not the URI of a registry.
    """
    for uri in dict.fromkeys(_addresses(tracking_uri)):
        new = sqlite_store.check_writable(uri)
        if new is not None:
            if not new.parent.is_dir():
                raise RegistryUnavailable(
                    f"no registry at {uri}, and no folder {new.parent} to make one in: make the folder, or "
                    "name another registry"
                )
            sqlite_store.create(new)
    return connect(tracking_uri)


def _addresses(tracking_uri: str | None) -> tuple[str, str]:
    """Return the address of the runs and the address of the models."""
    return tracking_uri or mlflow.get_tracking_uri(), tracking_uri or mlflow.get_registry_uri()


def registry_address(client: MlflowClient) -> str:
    """Return the address of a client's models, which may differ from the address of its runs."""
    return str(getattr(client, "_registry_uri", None) or client.tracking_uri)


@contextlib.contextmanager
def translate_errors(where: str) -> Iterator[None]:
    """Raise MLflow's errors as errors of this package; `where` is the address of the registry."""
    try:
        yield
    except mlflow.exceptions.MlflowException as error:
        raise _translate(error, where) from error
    except sqlalchemy.exc.SQLAlchemyError as error:
        # MLflow does not translate errors of its database while it opens the database.
        reason = first_line(error.args[0] if error.args else error)
        raise RegistryUnavailable(f"the registry at {where} cannot be used: {reason}") from error


def import_store(tracking_uri: str | None) -> None:
    """Import MLflow's store modules now, which MLflow would import at the first request."""
    if not (tracking_uri or mlflow.get_tracking_uri()).startswith("http"):
        importlib.import_module("mlflow.store.model_registry.sqlalchemy_store")
        importlib.import_module("mlflow.store.tracking.sqlalchemy_store")


def upsert(write: Callable[[], object]) -> None:
    """Write a tag, an alias or a dataset, and retry once if another client just created it.

    MLflow checks whether the row exists, and inserts it if not. If two clients do so at the same time,
    the database refuses the second insert. On the retry the row exists, and MLflow updates it.
    """
    try:
        write()
    except mlflow.exceptions.MlflowException as error:
        if error.error_code != "BAD_REQUEST":
            raise
        write()


def fetch_pages(search: Callable[..., PagedList[T]], limit: int | None, size: int) -> list[T]:
    """Return the results of an MLflow search, page by page.

    Parameters
    ----------
    search
        A search of `MlflowClient`, which takes `max_results` and `page_token`.
    limit
        The largest number of results; None returns all.
    size
        The largest number of results that MLflow returns in one page.
    """
    found: list[T] = []
    token = None
    while limit is None or len(found) < limit:
        most = size if limit is None else min(limit - len(found), size)
        page = search(max_results=most, page_token=token)
        found += page
        token = page.token
        if not token:
            break
    return found


@dataclass(frozen=True)
class Page(Generic[T]):
    """A part of a list, and the token of the next part; `following` is None on the last page."""

    items: tuple[T, ...]
    following: str | None = None


def fetch_page(
    client: MlflowClient, search: Callable[..., PagedList[T]], size: int, token: str | None
) -> Page[T]:
    """Return one page of the results of an MLflow search, for a reader who turns the pages."""
    with translate_errors(client.tracking_uri):
        found = search(max_results=size, page_token=token)
    return Page(tuple(found), found.token or None)


def iso_time(milliseconds: int) -> str:
    """Return one of MLflow's times, in milliseconds since 1970, as ISO 8601 in UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, timezone.utc).isoformat(timespec="milliseconds")


def quote(text: str) -> str:
    """Quote a text for MLflow's search language, which has two kinds of quotes and no escapes."""
    return f"'{text}'" if "'" not in text else f'"{text}"'


def if_exists(client: MlflowClient, request: Callable[..., T], *arguments: object) -> T | None:
    """Return the result of a request to MLflow; None if the object does not exist."""
    with translate_errors(client.tracking_uri):
        try:
            return request(*arguments)
        except mlflow.exceptions.MlflowException as error:
            if error.error_code not in _MISSING:
                raise
            return None


def _translate(error: mlflow.exceptions.MlflowException, where: str) -> RegistryToolsError:
    text = " ".join(str(error).split())
    refusal = text.removeprefix("PERMISSION_DENIED: ")  # which MLflow's client adds
    if error.error_code == "PERMISSION_DENIED" and refusal.startswith(MoveRefused.prefix):
        return MoveRefused(refusal.removeprefix(MoveRefused.prefix))
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
    """Return the user name for the registry, or else the login name, for the history."""
    # The second is the variable MLFLOW_TRACKING_USERNAME, else a file.
    signed_in = acting_user.get() or read_mlflow_creds().username
    if signed_in:
        return signed_in
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
