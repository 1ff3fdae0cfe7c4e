"""From the options of `registry-tools serve` to a server that runs."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import sys
from pathlib import Path

from registry_tools.errors import InputError
from registry_tools.refs import parse_ref
from registry_tools.serving.lean import without
from registry_tools.serving.settings import Settings

with without("pandas", "pyarrow"):
    import uvloop

    from registry_tools.formats import TrustPolicy
    from registry_tools.serving.follower import Follower
    from registry_tools.serving.metrics import Metrics
    from registry_tools.serving.sources import Sources
    from registry_tools.serving.worker import Server, Worker, end_on_signals

_log = logging.getLogger("registry_tools.serving")


def run(settings: Settings) -> int:
    """Serve until told to end, and return the exit code.

    Raises
    ------
    RegistryToolsError
        If there is nothing to serve, or the address cannot be had.
    """
    listening = bind(settings.host, settings.port)
    return uvloop.run(_alone(settings, listening))


async def _alone(settings: Settings, listening: socket.socket) -> int:
    """Follow and answer in one process."""
    policy = policy_of(settings)
    metrics = Metrics()
    worker = Worker(settings, metrics, policy)
    sources = sources_of(settings, policy)
    follower = Follower(sources, lambda: [worker], metrics, settings.poll)
    server = Server(worker.app)
    try:
        source = await follower.start()
        end_on_signals(server)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, follower.wake)
        worker.app.refresh = follower.refresh
        following = asyncio.create_task(follower.follow()) if source.stage else None
        settle_memory()
        _announce(settings, listening, str(source))
        await server.run_on(listening)
        if following is not None:
            following.cancel()
    finally:
        sources.close()
    return 0


def settle_memory() -> None:
    """Leave what was loaded out of garbage collection, and look for new garbage less often.

    A request leaves none, so that looking through all that lives would only make others wait.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def policy_of(settings: Settings) -> TrustPolicy:
    """Return what the operator allows a model to contain."""
    return TrustPolicy(
        types=settings.trust,
        allow_code=settings.allow_code,
        public_key=Path(settings.public_key) if settings.public_key else None,
    )


def sources_of(settings: Settings, policy: TrustPolicy) -> Sources:
    """Return where the versions come from."""
    cache = Path(settings.cache) if settings.cache else None
    return Sources(parse_ref(settings.ref), policy, settings.tracking_uri, cache)


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


def _announce(settings: Settings, listening: socket.socket, what: str) -> None:
    scheme = "https" if settings.ssl_certfile else "http"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    where = f"{scheme}://{host}:{listening.getsockname()[1]}"
    sys.stderr.write(f"serving {settings.ref} ({what}) on {where}; /docs shows how to ask\n")
    sys.stderr.flush()
