"""Run real tracking servers on SQLite or PostgreSQL, with or without passwords."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.request
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.servers import BIN, end_group, free_port, wait_until_up


@contextmanager
def server(
    empty: Path, folder: Path, *options: str, environment: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Run a real `mlflow server` on SQLite, which also stores the artifacts; yield its address."""
    if not (folder / "mlflow.db").exists():
        shutil.copy(empty, folder / "mlflow.db")
    store = f"sqlite:///{folder}/mlflow.db"
    with server_over(store, folder, "--workers", "1", *options, environment=environment) as uri:
        yield uri


@contextmanager
def server_over(
    store: str,
    folder: Path,
    *options: str,
    environment: Mapping[str, str] | None = None,
    program: Path = BIN / "mlflow",
) -> Iterator[str]:
    """Run a real `mlflow server` and yield its address; by default the folder keeps the artifacts."""
    port = free_port()
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [
                str(program),
                "server",
                *("--host", "127.0.0.1", "--port", str(port)),
                *("--backend-store-uri", store),
                *("--artifacts-destination", str(folder / "artifacts")),
                *options,
            ],
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # The jobs serve MLflow's GenAI features and would start eight more processes.
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **(environment or {})},
        )
    try:
        wait_until_up(f"http://127.0.0.1:{port}/health", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        end_group(process)


def account(user: str) -> dict[str, str]:
    """Return the variables with which a user signs in to a guarded server."""
    return {"MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": f"the-password-of-{user}"}


@contextmanager
def signed_in(user: str) -> Iterator[None]:
    """Sign in as a user in this process until the body ends."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in account(user).items():
            patch.setenv(name, value)
        yield


@contextmanager
def guarded_server(
    store: str,
    users: str,
    folder: Path,
    *options: str,
    permission: str = "READ",
    environment: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """Run a server that requires a password; `users` is the URI of its user database."""
    (folder / "auth.ini").write_text(
        f"[mlflow]\ndefault_permission = {permission}\nadmin_username = owner\n"
        f"admin_password = {account('owner')['MLFLOW_TRACKING_PASSWORD']}\n"
        f"database_uri = {users}\nauth_cache_ttl_seconds = 60\n"
    )
    settings = {
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "only for a test",
        **(environment or {}),
    }
    options = ("--app-name", "basic-auth", *options)
    with server_over(store, folder, *options, environment=settings) as uri:
        yield uri


def add_user(uri: str, user: str) -> None:
    """Create a user of a guarded server, signed in as its owner."""
    name, password = account(user).values()
    owner = ":".join(account("owner").values())
    request = urllib.request.Request(
        f"{uri}/api/2.0/mlflow/users/create",
        json.dumps({"username": name, "password": password}).encode(),
        {"Content-Type": "application/json", "Authorization": "Basic " + b64encode(owner.encode()).decode()},
    )
    urllib.request.urlopen(request, timeout=120).close()
