"""Requests to MLflow with the rights of one user among several: name and password, and the places of files.

MLflow reads name and password from the environment of the process, or asks a request auth provider at each
request. The provider of this module takes them from a context variable, so each thread has its own user. A
request without a user is refused: this process has no rights of its own. Threads that MLflow starts, such as
those that download files, have no user; a program that needs files starts a process for each user.
"""

from __future__ import annotations

import contextlib
import os
from base64 import b64encode
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import requests
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.artifact import artifact_repository_registry
from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository
from mlflow.tracking.request_auth import registry as auth_registry
from mlflow.tracking.request_auth.abstract_request_auth_provider import RequestAuthProvider
from requests.auth import AuthBase

from registry_tools.errors import AccessDenied, RegistryUnavailable
from registry_tools.mlflow_store.client import SERVER_FILES_VARIABLE, acting_user, translate_errors

_NAME = "registry-tools-user"
_VARIABLE = "MLFLOW_TRACKING_AUTH"  # names the provider, and holds no secret
_TIMEOUT = 10  # seconds

_SERVER = "mlflow-artifacts"
_RESOLVED = ("runs", "models")  # MLflow resolves them to another address, and looks that up again


@dataclass(frozen=True)
class User:
    """A user of the registry; the password is not in its text."""

    name: str
    password: str = field(repr=False)


_user: ContextVar[User | None] = ContextVar("user", default=None)


class _BasicAuth(AuthBase):
    """Adds the name and the password of the user of this context to a request."""

    def __init__(self, user: User) -> None:
        self._user = user

    def __call__(self, request: Any) -> Any:
        given = f"{self._user.name}:{self._user.password}".encode()
        request.headers["Authorization"] = f"Basic {b64encode(given).decode()}"
        # MLflow shares its HTTP session between all users of the process, with the cookies of servers.
        request.headers.pop("Cookie", None)
        return request


class _NoAuth(AuthBase):
    """Leaves a request without a user; `requests` would read one from ~/.netrc."""

    def __call__(self, request: Any) -> Any:
        return request


class UserAuthProvider(RequestAuthProvider):  # type: ignore[misc]
    """Tells MLflow which user sends a request."""

    def get_name(self) -> str:
        """Return the name by which MLflow finds this provider."""
        return _NAME

    def get_auth(self) -> AuthBase:
        """Return the credentials of the user of this context.

        Raises
        ------
        AccessDenied
            If this context has no user.
        """
        user = _user.get()
        if user is None:
            raise AccessDenied("a request without a user was not sent: sign in first")
        return _BasicAuth(user)


def require_users() -> None:
    """Let every request of this process to an MLflow server need a user from now on."""
    providers = auth_registry._request_auth_provider_registry
    if not any(isinstance(each, UserAuthProvider) for each in providers):
        providers.register(UserAuthProvider)  # type: ignore[no-untyped-call]
    os.environ[_VARIABLE] = _NAME


@contextlib.contextmanager
def acting_as(user: User) -> Iterator[None]:
    """Send the requests of this thread with the credentials of a user until the body ends."""
    tokens = _user.set(user), acting_user.set(user.name)
    try:
        yield
    finally:
        _user.reset(tokens[0])
        acting_user.reset(tokens[1])


def needs_sign_in(address: str) -> bool:
    """Return whether an MLflow server refuses requests without a user.

    Raises
    ------
    RegistryUnavailable
        If there is no MLflow server at the address.
    """
    url = f"{address.rstrip('/')}/api/2.0/mlflow/registered-models/search?max_results=1"
    try:
        response = requests.get(url, timeout=_TIMEOUT, auth=_NoAuth(), allow_redirects=False)
    except requests.RequestException as error:
        raise RegistryUnavailable(
            f"the registry at {address} is unavailable ({type(error).__name__}): check that it runs"
        ) from error
    if response.status_code in {401, 403}:
        return True
    if response.status_code != 200:
        raise RegistryUnavailable(
            f"{address} responded {response.status_code}: name an MLflow server with --tracking-uri"
        )
    return False


def is_password(client: MlflowClient, user: User) -> bool:
    """Return whether an MLflow server accepts the name and the password of a user.

    Raises
    ------
    RegistryToolsError
        If the server does not respond, or has an error.
    """
    if ":" in user.name or not user.name or not user.password:
        return False
    try:
        with acting_as(user), translate_errors(client.tracking_uri):
            client.search_registered_models(max_results=1)
    except AccessDenied:
        return False
    return True


def environment(user: User | None) -> dict[str, str]:
    """Return the variables with which a process of its own acts as a user, and uses no other rights."""
    files = {SERVER_FILES_VARIABLE: "1"}
    if user is None:
        return files
    return files | {"MLFLOW_TRACKING_USERNAME": user.name, "MLFLOW_TRACKING_PASSWORD": user.password}


def only_from_server() -> None:
    """Let MLflow's client in this process refuse all files that are not behind its tracking server.

    Any user who may create an experiment or a version chooses where MLflow's client reads its files: a folder
    of this machine, a bucket for which this process has credentials, or a server that would get the password
    of the user. A process that acts for other people must not do that.
    """
    known: dict[str, Any] = artifact_repository_registry.get_registered_artifact_repositories()
    for scheme in [scheme for scheme in known if scheme not in _RESOLVED]:
        known[scheme] = from_server


def from_server(artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None) -> Any:
    """Return MLflow's repository for an address behind the tracking server.

    Raises
    ------
    MlflowException
        If the address is another place.
    """
    address = urlsplit(artifact_uri)
    if address.scheme != _SERVER or address.netloc not in {"", urlsplit(tracking_uri or "").netloc}:
        raise MlflowException(
            f"files at {artifact_uri[:100]} are not read for other users; store them behind the tracking "
            "server, or use the command line"
        )
    return MlflowArtifactsRepository(artifact_uri, tracking_uri, registry_uri)
