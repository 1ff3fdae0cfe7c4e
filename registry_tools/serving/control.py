"""The connection of a process to its parent, and the files that the processes of a server share."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from registry_tools.inference.model_artifact import ModelArtifact

MOST_BYTES = 1 << 16  # of a message
_LONGEST_ERROR = 2_000  # characters


@dataclass(frozen=True)
class ProcessFolder:
    """The files that the processes of one server share."""

    path: Path  # a private folder, which the server removes at its end
    trials: Path  # the folder with the trials that passed

    @property
    def shadow_report(self) -> Path:
        """The file with the last report of the shadow."""
        return self.path / "shadow.json"


@dataclass(frozen=True)
class Control:
    """The connection of a process to its parent; each message is one packet of JSON."""

    outbox: socket.socket
    parent_end: socket.socket  # readable once the parent has ended: it sends nothing
    folder: ProcessFolder
    server_has_served: bool = False  # whether any process of this server has served before

    def send_ready(self, served: str) -> None:
        """Report that this process is ready, with the version that it serves."""
        self._send("ready", served)

    def send_error(self, error: str) -> None:
        """Report why this process ends."""
        self._send("error", error[:_LONGEST_ERROR])

    def send_refresh(self) -> None:
        """Ask the parent to make the other processes poll the registry at once, as `/-/refresh` does."""
        self._send("refresh")

    def send_poll(self) -> None:
        """Ask the parent to make the other processes poll the registry at once."""
        self._send("poll")

    def request_trial(self, artifact: ModelArtifact, seconds: float) -> str | None:
        """Have the parent try a version; return the reason if it fails, None if it passes.

        Parameters
        ----------
        artifact
            The version.
        seconds
            The longest time to wait for the result.
        """
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                self._send("try", artifact.to_json(), theirs)
            ours.settimeout(seconds)
            try:
                result = ours.makefile().readline()
            except TimeoutError:
                return f"the trial of {artifact} did not end in time"
        reason: str | None = (
            json.loads(result) if result else f"the trial of {artifact} ended without a result"
        )
        return reason

    def _send(self, kind: str, text: str = "", *connections: socket.socket) -> None:
        message = json.dumps([os.getpid(), kind, text]).encode()
        socket.send_fds(self.outbox, [message], [each.fileno() for each in connections])

    def on_poll(self, poll: Callable[[bool], object]) -> None:
        """Call a function when the parent asks for a poll; with True if a failed version is retried."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, poll, True)
        loop.add_signal_handler(signal.SIGUSR1, poll, False)

    def on_end(self, end: Callable[[], object]) -> None:
        """Call a function when the parent sends SIGTERM or has ended."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, end)

        def parent_has_ended() -> None:
            loop.remove_reader(self.parent_end)
            end()

        loop.add_reader(self.parent_end, parent_has_ended)


def message_sockets() -> tuple[socket.socket, socket.socket]:
    """Return the ends of a connection that keeps the bounds of messages: one to send, one to receive."""
    # Sequenced packets hold more messages than datagrams; macOS has none.
    kind = socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_DGRAM
    return socket.socketpair(socket.AF_UNIX, kind)
