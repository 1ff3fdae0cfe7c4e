"""Start the server: check the settings, bind the address, and run the supervisor."""

from __future__ import annotations

import gc
import importlib.util
import os
import shutil
import socket
import ssl
import tempfile
from pathlib import Path

from registry_tools.errors import InputError
from registry_tools.files.temp_files import make_temp_folder
from registry_tools.serving.settings import Settings


def run(settings: Settings) -> int:
    """Serve until a signal, and return the exit code.

    Raises
    ------
    RegistryToolsError
        If no version can be served, a setting is invalid, the address cannot be bound, or the system
        has no forks.
    """
    if not hasattr(os, "fork"):
        raise InputError("the server needs Linux or macOS; on Windows, run it in WSL or in a container")
    # Scanning the imported objects would take a sixth of the start.
    gc.disable()
    if settings.ssl_certfile or settings.ssl_keyfile:
        _check_tls(settings.ssl_certfile, settings.ssl_keyfile)
    if settings.log_predictions:
        _make_folder(Path(settings.log_predictions))
    if settings.grpc_port is not None:
        if settings.grpc_port == settings.port:
            raise InputError(
                f"--port and --grpc-port are both {settings.port}: name another with --grpc-port"
            )
        _check_grpc(settings.host, settings.grpc_port)
    listening = bind(settings.host, settings.port)
    path = make_temp_folder("server")
    try:
        if settings.workers > 1 or settings.shadow is not None:
            # prometheus_client reads it during its import.
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(path)
        # Only a process with one thread can be forked safely: keep BLAS and Arrow from starting more.
        os.environ["OPENBLAS_NUM_THREADS"] = "1"
        os.environ["JE_ARROW_MALLOC_CONF"] = "background_thread:false"
        from registry_tools.serving.control import ProcessFolder
        from registry_tools.serving.processes.lifecycle import preload
        from registry_tools.serving.processes.supervisor import Supervisor, children_of
        from registry_tools.serving.rollout.trials import trials_folder

        preload(settings.tracking_uri)
        gc.freeze()  # so that the forked processes share these memory pages
        folder = ProcessFolder(path, trials_folder(path / "trials"))
        return Supervisor(settings, listening, folder, children_of(settings, listening)).run()
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _check_tls(certificate: str | None, key: str | None) -> None:
    if not certificate:
        raise InputError("--ssl-keyfile needs --ssl-certfile")

    def refuse_encrypted() -> str:
        raise InputError(
            f"{key or certificate}: the key is encrypted; name a decrypted copy that only you can read: "
            "openssl pkey -in KEY -out DECRYPTED_KEY"
        )

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, refuse_encrypted)
    except OSError as error:  # includes ssl.SSLError
        files = " and ".join(filter(None, (certificate, key)))
        raise InputError(
            f"{files}: the certificate and its key (--ssl-certfile, --ssl-keyfile) cannot be loaded: "
            f"{error.strerror or error}"
        ) from error


def _check_grpc(host: str, port: int) -> None:
    if importlib.util.find_spec("grpc") is None:
        raise InputError("--grpc-port needs another package: pip install grpcio")
    # Check here, because gRPC would share the port with another program.
    bind(host, port, "--grpc-port").close()


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"{folder}: predictions cannot be logged there: {error.strerror or error}; "
            "name another folder with --log-predictions"
        ) from error


def bind(host: str, port: int, option: str = "--port") -> socket.socket:
    """Return a socket that is bound to an address but does not listen yet.

    Raises
    ------
    InputError
        If the address cannot be bound; the message gives the reason.
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
            f"name another with --host and {option}"
        ) from error
    return listening
