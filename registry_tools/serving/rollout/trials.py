"""Load a version after a trial in another process, and record the versions that passed.

The parent process forks the trials (`serving.processes.supervisor`). It has one thread and has imported
all modules, so a trial need not start Python.
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path

from registry_tools.errors import VerificationError
from registry_tools.files.temp_files import locked
from registry_tools.inference.model_artifact import ModelArtifact
from registry_tools.inference.model_loader import load
from registry_tools.inference.predictor import Predictor
from registry_tools.inference.trial import trial_key
from registry_tools.processes import process_is_running
from registry_tools.serving.control import Control
from registry_tools.serving.settings import Settings

_log = logging.getLogger(__name__)

_PASSED = "passed\n"
_CRASHES = 2
_END_SECONDS = 30.0  # the time that a trial may exceed its limits before it counts as failed


def load_after_trial(artifact: ModelArtifact, settings: Settings, control: Control) -> Predictor:
    """Have a version tried unless it has passed before, then load it in this process.

    Raises
    ------
    VerificationError
        If the version fails its trial, or if two processes of this server have crashed while they loaded
        it: a version can pass its trial and still crash.
    """
    key, marks = trial_key(artifact, settings.trust_policy, settings.trial_limits), control.folder.path
    _require_trial(artifact, control.folder.trials / key, settings, control)
    # Each process that loads a version marks it.
    ended = [mark for mark in marks.glob(f"{key}.*") if not process_is_running(int(mark.suffix[1:]))]
    if len(ended) >= _CRASHES:
        raise VerificationError(f"{artifact} crashed {_CRASHES} processes that loaded it")
    mark = marks / f"{key}.{os.getpid()}"
    mark.touch()
    try:
        predictor = load(artifact, settings.trust_policy)
    finally:
        mark.unlink(missing_ok=True)
    if predictor.example is None:
        _log.warning("%s has no example, so that its predictions were not tried", artifact)
    elif not artifact.recorded_predictions.is_file():
        _log.warning("%s has no recorded predictions: it was tried on its input example", artifact)
    return predictor


def _require_trial(artifact: ModelArtifact, record: Path, settings: Settings, control: Control) -> None:
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
        reason = control.request_trial(artifact, settings.trial_limits.seconds + _END_SECONDS)
        if reason is not None:
            raise VerificationError(reason)
        _log.info("%s passed its trial", artifact)
        with contextlib.suppress(OSError):  # then the next start tries the version again
            record.write_text(_PASSED)


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
