"""Run the console with uvicorn until a signal ends it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import uvicorn

from registry_tools.console.app import create_app
from registry_tools.console.context import Console
from registry_tools.console.sessions import Session, Sessions
from registry_tools.errors import InputError
from registry_tools.mlflow_store import user_credentials
from registry_tools.mlflow_store.client import connect
from registry_tools.policy.policy_file import POLICY_VARIABLE, find_policy

_MOST_CONNECTIONS = 100
_LARGEST_HEAD = 64 * 1024  # bytes
_END_SECONDS = 10


def run(
    registry: str | None,
    host: str,
    port: int,
    public_url: str | None,
    policy_file: Path | None,
    echo: Callable[[str], None],
) -> None:
    """Serve the console until SIGINT or SIGTERM.

    Parameters
    ----------
    registry
        The address of the MLflow server or of a database; None takes MLflow's own.
    host, port
        The address to listen on; port 0 takes a free one.
    public_url
        The address of a proxy through which browsers reach the console; None if they reach it directly.
    policy_file
        The policy; None takes the usual places.
    echo
        Prints a line.

    Raises
    ------
    InputError
        If the port cannot be used, or the address of the registry has a password.
    PolicyError
        If the policy is not valid.
    RegistryUnavailable
        If the registry does not respond.
    """
    address = connect(registry).tracking_uri
    if urlsplit(address).username is not None and address.startswith("http"):
        raise InputError("leave name and password out of the address of the registry: each user signs in")
    if policy_file is not None:  # also for the commands that the console runs
        os.environ[POLICY_VARIABLE] = str(policy_file.resolve())
    find_policy()
    client, anonymous = connect(address), None
    if address.startswith("http") and user_credentials.needs_sign_in(address):
        user_credentials.require_users()
    else:
        anonymous = Session(client)
    listening = _listen(host, port)
    port = listening.getsockname()[1]
    urls = [public_url] if public_url else [f"http://{name}:{port}" for name in _names(host)]
    origins = tuple(origin_of(url) for url in urls)
    console = Console(address, client, Sessions(client), anonymous, origins)
    users = "read-only, as the registry has no users" if anonymous else "sign in as a user of the registry"
    echo(f"{origins[0]}  console of {address}: {users}")
    with listening:
        _Server(_config(console, public_url is not None)).run([listening])


def origin_of(url: str) -> str:
    """Return an address as browsers send it: without the port that is the default of its scheme."""
    return url.removesuffix(":443" if url.startswith("https:") else ":80")


def _config(console: Console, behind_proxy: bool) -> uvicorn.Config:
    return uvicorn.Config(
        create_app(console),
        interface="asgi3",
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=behind_proxy,  # else the proxy's address would be that of each client
        limit_concurrency=_MOST_CONNECTIONS,
        h11_max_incomplete_event_size=_LARGEST_HEAD,
        timeout_graceful_shutdown=_END_SECONDS,
    )


class _Server(uvicorn.Server):
    """Ends on SIGINT and SIGTERM without raising them again, so that the command ends with exit code 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {
            number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise InputError(f"port {port} of {host} cannot be used ({reason}): choose another") from error


def _names(host: str) -> tuple[str, ...]:
    shown = f"[{host}]" if ":" in host else host
    return tuple(dict.fromkeys((shown.lower(), "127.0.0.1", "localhost")))
