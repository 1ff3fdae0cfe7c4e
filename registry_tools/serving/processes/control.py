"""The connection of a process to its parent, and the files that the processes of a server share."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from registry_tools.inference.artifact_fetcher import ArtifactFetcher
from registry_tools.refs import parse_ref
from registry_tools.serving.settings import Settings

_LONGEST_ERROR = 2_000  # characters


@dataclass(frozen=True)
class Control:
    """The socket of a process to its parent; messages are lines of JSON."""

    connection: socket.socket
    server_has_served: bool  # whether any process of this server has served before

    def send_ready(self, served: str) -> None:
        """Report that this process is ready, with the version that it serves."""
        self._send({"ready": served})

    def send_error(self, error: str) -> None:
        """Report why this process ends."""
        self._send({"error": error[:_LONGEST_ERROR]})

    def send_refresh(self) -> None:
        """Ask the parent to make all workers poll the registry at once."""
        self._send({"refresh": "all"})

    def _send(self, message: dict[str, str]) -> None:
        self.connection.sendall(json.dumps(message).encode() + b"\n")

    def on_end(self, end: Callable[[], None]) -> None:
        """Call a function when the parent sends SIGTERM or has ended."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, end)

        def parent_is_gone() -> None:
            loop.remove_reader(self.connection)
            end()

        loop.add_reader(self.connection, parent_is_gone)  # readable only at its end: the parent sends nothing


@dataclass(frozen=True)
class ProcessFolder:
    """The files that the processes of one server share."""

    path: Path  # a private folder, which the server removes at its end
    trials: Path  # the folder with the trials that passed

    @property
    def shadow_report(self) -> Path:
        """The file with the last report of the shadow."""
        return self.path / "shadow.json"

    def fetcher(self, settings: Settings, ref: str) -> ArtifactFetcher:
        """Return a fetcher for a reference.

        It always has a cache: a restarted process needs the served version, even if the registry is
        unavailable.
        """
        cache = Path(settings.cache) if settings.cache else self.path / "cache"
        return ArtifactFetcher(parse_ref(ref), settings.policy, settings.tracking_uri, cache)
