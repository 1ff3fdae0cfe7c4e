"""Have each new version tried before the server loads it, and keep the versions that passed.

The parent process forks the trials (`serving.processes.supervisor`): it runs one thread and has
imported everything, so a trial costs no start of Python.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from registry_tools.data.temp_files import locked
from registry_tools.errors import VerificationError
from registry_tools.inference.model_artifact import ModelArtifact
from registry_tools.inference.trial import describe_end, trial_key
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.processes import ResourceLimits, process_is_running

_log = logging.getLogger(__name__)

_PASSED = "passed\n"
_CRASHES = 2
_MOST_BYTES = 1 << 16  # of a result
_END_SECONDS = 30.0  # after which a trial that should have ended is given up


class Trials:
    """Asks the parent process for trials, and keeps the results in a folder of this user."""

    def __init__(
        self, control: socket.socket, folder: Path, marks: Path, policy: TrustPolicy, limits: ResourceLimits
    ) -> None:
        """Create it.

        Parameters
        ----------
        control
            The connection to the parent.
        folder, marks
            The folders of the trials that passed, and of the marks of processes that load a version.
        policy, limits
            The policy and the limits of the trials.
        """
        self._control = control
        self._folder = folder
        self._marks = marks
        self._policy = policy
        self._limits = limits

    @contextlib.contextmanager
    def passed(self, artifact: ModelArtifact) -> Iterator[None]:
        """Try a version, unless it has passed before; it is loaded in the block.

        Raises
        ------
        VerificationError
            If it fails, with the reason; also if two processes of this server have ended in the block,
            because a version can pass its trial and crash all the same.
        """
        key = trial_key(artifact, self._policy, self._limits)
        self._require(artifact, self._folder / key)
        ended = [mark for mark in self._marks.glob(f"{key}-*") if not process_is_running(_process_of(mark))]
        if len(ended) >= _CRASHES:
            raise VerificationError(f"{artifact} ended {_CRASHES} processes that loaded it")
        mark = self._marks / f"{key}-{os.getpid()}"
        mark.touch()
        try:
            yield
        finally:
            mark.unlink(missing_ok=True)

    def _require(self, artifact: ModelArtifact, record: Path) -> None:
        with contextlib.ExitStack() as stack:
            try:
                # The workers of a server want the same trial at the same time: one of them has it made.
                stack.enter_context(locked(record))
                if record.read_text() == _PASSED:
                    return
            except OSError as error:
                _log.warning("the trial of %s is not kept: %s: %s", artifact, record.parent, error.strerror)
            reason = self._try(artifact)
            if reason is not None:
                raise VerificationError(reason)
            _log.info("%s passed its trial", artifact)
            with contextlib.suppress(OSError):  # it is tried again at the next start
                record.write_text(_PASSED)

    def _try(self, artifact: ModelArtifact) -> str | None:
        """Return why a version failed its trial; None if it passed."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            message = json.dumps({"try": artifact.to_json()}).encode() + b"\n"
            socket.send_fds(self._control, [message], [theirs.fileno()])
            theirs.close()
            ours.settimeout(self._limits.seconds + _END_SECONDS)
            try:
                result = json.loads(b"".join(_read(ours)) or b"{}")
            except TimeoutError:
                return f"{artifact} was tried without a result"
        if "exit_code" in result:
            return describe_end(result["exit_code"], artifact, self._limits)
        if "error" not in result:
            return f"{artifact} ended its trial without a result"
        error: str | None = result["error"]
        return error


def _process_of(mark: Path) -> int:
    return int(mark.name.rpartition("-")[2])


def _read(connection: socket.socket) -> Iterator[bytes]:
    while part := connection.recv(_MOST_BYTES):
        yield part


def trials_folder(fallback: Path) -> Path:
    """Return the folder of this user where servers keep the trials that passed; make it if needed.

    Parameters
    ----------
    fallback
        A private folder to use where the user has none, or shares it with others.
    """
    with contextlib.suppress(OSError, RuntimeError):  # a user without a home folder
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "registry-tools", "trials")
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = home.stat()
        if status.st_uid == os.geteuid() and not status.st_mode & 0o077 and os.access(home, os.W_OK):
            return home
        _log.warning("%s is not used: only you may have access to it (chmod 700)", home)
    fallback.mkdir(mode=0o700, exist_ok=True)
    return fallback
