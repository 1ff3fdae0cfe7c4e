"""Request a trial of each new version before the server loads it, and record versions that passed.

The parent process forks the trials (`serving.processes.supervisor`). It has one thread and has imported
all modules, so a trial need not start Python.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from registry_tools.errors import VerificationError
from registry_tools.files.temp_files import locked
from registry_tools.inference.model_artifact import ModelArtifact
from registry_tools.inference.trial import describe_end, trial_key
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.processes import ResourceLimits, process_is_running

_log = logging.getLogger(__name__)

_PASSED = "passed\n"
_CRASHES = 2
_MOST_BYTES = 1 << 16  # of a part of a result
_END_SECONDS = 30.0  # the time that a trial may exceed its limits before it counts as failed


class Trials:
    """Requests trials from the parent process, and stores their results in a folder of this user."""

    def __init__(
        self, control: socket.socket, folder: Path, marks: Path, policy: TrustPolicy, limits: ResourceLimits
    ) -> None:
        """Store the connection, the folders and the limits.

        Parameters
        ----------
        control
            The connection to the parent.
        folder, marks
            The folder with the trials that passed, and the folder with a mark for each process that loads
            a version.
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
        """Try a version unless it has passed before; the caller loads it in the body.

        Raises
        ------
        VerificationError
            If the version fails its trial, or if two processes of this server have crashed in the body: a
            version can pass its trial and still crash.
        """
        key = trial_key(artifact, self._policy, self._limits)
        self._require(artifact, self._folder / key)
        ended = [mark for mark in self._marks.glob(f"{key}-*") if not process_is_running(_process_of(mark))]
        if len(ended) >= _CRASHES:
            raise VerificationError(f"{artifact} crashed {_CRASHES} processes that loaded it")
        mark = self._marks / f"{key}-{os.getpid()}"
        mark.touch()
        try:
            yield
        finally:
            mark.unlink(missing_ok=True)

    def _require(self, artifact: ModelArtifact, record: Path) -> None:
        with contextlib.ExitStack() as stack:
            try:
                # All workers request the same trial at the same time; the lock lets one of them run it.
                stack.enter_context(locked(record))
                if record.read_text() == _PASSED:
                    return
            except OSError as error:
                _log.warning(
                    "the result of the trial of %s cannot be stored: %s: %s",
                    artifact,
                    record.parent,
                    error.strerror,
                )
            reason = self._try(artifact)
            if reason is not None:
                raise VerificationError(reason)
            _log.info("%s passed its trial", artifact)
            with contextlib.suppress(OSError):  # then the next start tries the version again
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
                return f"the trial of {artifact} did not end in time"
        if "exit_code" in result:
            return describe_end(result["exit_code"], artifact, self._limits)
        if "error" not in result:
            return f"the trial of {artifact} ended without a result"
        error: str | None = result["error"]
        return error


def _process_of(mark: Path) -> int:
    return int(mark.name.rpartition("-")[2])


def _read(connection: socket.socket) -> Iterator[bytes]:
    while part := connection.recv(_MOST_BYTES):
        yield part


def trials_folder(fallback: Path) -> Path:
    """Return the user's folder with the trials that passed, and create it if needed.

    Parameters
    ----------
    fallback
        A private folder to use if the user has no home folder, or others have access to it.
    """
    with contextlib.suppress(OSError, RuntimeError):  # the user has no home folder
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "registry-tools", "trials")
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = home.stat()
        if status.st_uid == os.geteuid() and not status.st_mode & 0o077 and os.access(home, os.W_OK):
            return home
        _log.warning("%s is not used: only you may have access to it (chmod 700)", home)
    fallback.mkdir(mode=0o700, exist_ok=True)
    return fallback
