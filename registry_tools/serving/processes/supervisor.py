"""The supervisor, the parent of all processes of a server: it forks workers, the shadow and trials.

It has one thread and has imported all modules, so that a forked process need not start Python and
shares the memory of the modules. The supervisor restarts a process that ends.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from prometheus_client import multiprocess

from registry_tools.errors import RegistryToolsError, VerificationError
from registry_tools.inference.model_artifact import ModelArtifact
from registry_tools.inference.trial import describe_end, try_version
from registry_tools.processes import describe_exit
from registry_tools.serving.control import MOST_BYTES, Control, ProcessFolder, message_sockets
from registry_tools.serving.processes import lifecycle, shadow_process, worker
from registry_tools.serving.settings import Settings

_log = logging.getLogger(__name__)

_MIN_UPTIME = 10.0  # seconds; a process that ran for a shorter time is restarted with a delay
_MAX_BACKOFF = 30.0
_START_SECONDS = 60.0  # in addition to the time to load a version; then a process that is not ready is killed
_END_SECONDS = 5.0  # in addition to the time that a request may take
_POLLS = (signal.SIGHUP, signal.SIGUSR1)  # the supervisor passes them on
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, *_POLLS)


@dataclass(eq=False)
class Child:
    """A process that the supervisor keeps running: a worker or the shadow."""

    name: str
    run: Callable[[Control], None]
    began: float = 0.0
    ready: bool = False
    error: str | None = None  # the last error that it sent
    delay: float = 0.0  # seconds before the next start


@dataclass(eq=False, kw_only=True)
class Trial(Child):
    """A process that tries a version for a worker or the shadow."""

    artifact: ModelArtifact
    requester: socket.socket  # the process that waits for the result


def children_of(settings: Settings, listening: socket.socket) -> list[Child]:
    """Return the processes of a server, the workers first."""
    feed, receiver = message_sockets() if settings.shadow else (None, None)
    serve = partial(worker.run, settings, listening, feed)
    children = [Child("worker", serve) for _ in range(settings.workers)]
    if receiver is not None:
        children.append(Child("shadow", partial(shadow_process.run, settings, receiver)))
    return children


class Supervisor:
    """Starts, restarts and ends the processes of a server."""

    def __init__(
        self, settings: Settings, listening: socket.socket, folder: ProcessFolder, children: Sequence[Child]
    ) -> None:
        self._settings = settings
        self._listening = listening
        outbox, self._inbox = message_sockets()
        self._inbox.setblocking(False)
        self._alive, parent_end = socket.socketpair()
        self._control = Control(outbox, parent_end, folder)
        self._workers = [child for child in children if child.name == "worker"]
        self._unready = set(self._workers)  # those that have never been ready
        self._due = {children[0]: 0.0}  # the time of the next start of each child that does not run
        self._waiting = list(children[1:])  # for the first worker to be ready
        self._running: dict[int, Child] = {}  # by process id
        self._kill_at = math.inf  # set while the server ends
        self._error: str | None = None

    def run(self) -> int:
        """Serve until a signal.

        Raises
        ------
        RegistryToolsError
            If the first worker cannot serve a version.
        """
        with lifecycle.signal_socket(_SIGNALS) as signals:
            while self._running or self._due:
                self._start_due()
                readable, _, _ = select.select([signals, self._inbox], [], [], 1.0)
                self._read_messages()
                if signals in readable:
                    self._on_signals(set(signals.recv(MOST_BYTES)))
                self._kill_late()
        if self._error is not None:
            raise RegistryToolsError(self._error)
        return 0

    def _on_signals(self, numbers: set[int]) -> None:
        if numbers & {signal.SIGTERM, signal.SIGINT}:
            self._end()
        for number in numbers & set(_POLLS):
            self._send_signal(number)
        self._reap()

    def _send_signal(self, number: int, but: int | None = None) -> None:
        for pid in self._running:
            if pid != but:
                os.kill(pid, number)

    def _end(self) -> None:
        self._listening.close()
        self._due.clear()
        self._waiting.clear()
        self._unready.clear()
        self._kill_at = min(self._kill_at, time.monotonic() + self._settings.timeout + _END_SECONDS)
        self._send_signal(signal.SIGTERM)

    def _kill_late(self) -> None:
        now, longest = time.monotonic(), self._settings.load_seconds + _START_SECONDS
        for pid, child in self._running.items():
            starts_too_long = not child.ready and now - child.began > longest
            if starts_too_long or now > self._kill_at:
                os.kill(pid, signal.SIGKILL)

    def _start_due(self) -> None:
        for child in [child for child, due in self._due.items() if due <= time.monotonic()]:
            del self._due[child]
            self._start(child)

    def _start(self, child: Child) -> None:
        child.began, child.ready, child.error = time.monotonic(), False, None
        try:
            self._running[self._fork(child.run)] = child
        except OSError as error:
            if isinstance(child, Trial):
                _send_result(child, f"no trial: {error.strerror}")
                return
            _log.warning("a %s cannot be started: %s", child.name, error.strerror)
            self._start_later(child)

    def _fork(self, run: Callable[[Control], None]) -> int:
        """Run a function in a new process, and return the process id."""
        sys.stdout.flush()
        sys.stderr.flush()
        pid = lifecycle.fork_without_handlers(_SIGNALS)
        if pid:
            return pid
        code = 1
        try:
            self._inbox.close()
            self._alive.close()  # otherwise no process would notice the end of the parent
            run(self._control)
            code = 0
        except RegistryToolsError as error:
            self._control.send_error(str(error))
        except BaseException:  # noqa: BLE001 - the last place that can report an error of this process
            _log.exception("a process of the server failed")
        finally:
            sys.stderr.flush()
            os._exit(code)

    def _read_messages(self) -> None:
        while True:
            try:
                content, descriptors, _, _ = socket.recv_fds(self._inbox, MOST_BYTES, 1)
            except BlockingIOError:
                return
            pid, kind, text = json.loads(content)
            child = self._running.get(pid)
            if kind == "try":
                self._start_trial(ModelArtifact.from_json(text), socket.socket(fileno=descriptors[0]))
            elif kind == "refresh":
                self._send_signal(signal.SIGHUP, but=pid)
            elif kind == "poll":
                self._send_signal(signal.SIGUSR1, but=pid)
            elif child is None:
                _log.warning("a message of process %s, which this server did not start, is ignored", pid)
            elif kind == "ready":
                self._on_ready(child, text)
            elif kind == "error":
                child.error = text

    def _on_ready(self, child: Child, served: str) -> None:
        child.ready = True
        if child in self._workers:
            self._control = replace(self._control, server_has_served=True)
        self._due |= dict.fromkeys(self._waiting, 0.0)
        self._waiting.clear()
        if child in self._unready:
            self._unready.remove(child)
            if not self._unready:
                lifecycle.announce(self._settings, self._listening, served)

    def _start_trial(self, artifact: ModelArtifact, requester: socket.socket) -> None:
        if self._kill_at < math.inf:
            requester.close()
            return
        parent = os.getpid()

        def run(_: Control) -> None:
            lifecycle.end_with_parent(parent)
            os.setsid()
            self._listening.close()  # a trial that outlives the server must not keep its port
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), 1)
                os.dup2(nowhere.fileno(), 2)
            error = try_version(artifact, self._settings.trust_policy, self._settings.trial_limits)
            if error is not None:
                raise VerificationError(error)

        self._start(Trial("trial", run, artifact=artifact, requester=requester))

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):  # none is left
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                self._on_exit(ended[0], os.waitstatus_to_exitcode(ended[1]))

    def _on_exit(self, pid: int, code: int) -> None:
        self._read_messages()  # the last ones of this process
        child = self._running.pop(pid, None)
        if isinstance(child, Trial):
            self._end_trial(child, pid, code)
        elif child is not None:  # None for an orphan, which the first process of a container adopts
            if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
                multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]
            if self._kill_at == math.inf:
                self._restart(child, child.error or f"its process ended with {describe_exit(code)}")

    def _end_trial(self, trial: Trial, pid: int, code: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # the processes that the trial started
        reason = trial.error
        if reason is None and code != 0:
            reason = describe_end(code, trial.artifact, self._settings.trial_limits)
        _send_result(trial, reason)

    def _restart(self, child: Child, reason: str) -> None:
        """Start a process again, or end the server if no worker has ever served."""
        if child in self._workers and not self._control.server_has_served:
            self._error = child.error or f"no worker can serve: {reason}"
            self._end()
            return
        _log.warning("a %s is restarted: %s", child.name, reason)
        self._start_later(child)

    def _start_later(self, child: Child) -> None:
        now = time.monotonic()
        ran_long = now - child.began > _MIN_UPTIME
        child.delay = 0.0 if ran_long else min(max(child.delay * 2, 0.5), _MAX_BACKOFF)
        self._due[child] = now + child.delay


def _send_result(trial: Trial, reason: str | None) -> None:
    """Send a process why its trial failed; None if it passed."""
    with trial.requester, contextlib.suppress(OSError):
        trial.requester.sendall(json.dumps(reason).encode() + b"\n")
