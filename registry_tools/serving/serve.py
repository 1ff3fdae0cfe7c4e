"""From the options of `registry-tools serve` to a server that runs, in one process or several."""

from __future__ import annotations

import os
import socket
import tempfile

from registry_tools.errors import InputError
from registry_tools.serving.settings import Settings


def run(settings: Settings) -> int:
    """Serve until told to end, and return the exit code.

    Raises
    ------
    RegistryToolsError
        If there is nothing to serve, or the address cannot be had.
    """
    listening = bind(settings.host, settings.port)
    if settings.workers == 1:
        from registry_tools.serving import alone

        return alone.run(settings, listening)
    with tempfile.TemporaryDirectory(prefix="metrics-") as folder:
        # Read by prometheus_client when it is imported, here and in every worker.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        from registry_tools.serving import supervisor

        return supervisor.run(settings, listening)


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that is bound, and does not listen yet.

    Raises
    ------
    InputError
        If the address is not to be had; says why.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        raise InputError(
            f"cannot listen on {host} port {port}: {error.strerror or error}; "
            "name another with --host and --port"
        ) from error
    return listening
