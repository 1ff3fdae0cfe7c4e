"""The supervisor, the parent of all processes of a server: it forks workers, the shadow and trials.

It has one thread and has imported all modules, so that a forked process need not start Python and
shares the memory of the modules. The supervisor restarts a process that ends.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from prometheus_client import multiprocess

from registry_tools.errors import RegistryToolsError
from registry_tools.inference.model_artifact import ModelArtifact
from registry_tools.inference.trial import try_version
from registry_tools.processes import describe_exit
from registry_tools.serving.observers.shadow import make_feed
from registry_tools.serving.processes import shadow_process, worker
from registry_tools.serving.processes.control import Control, ProcessFolder
from registry_tools.serving.processes.lifecycle import (
    announce,
    end_with_parent,
    fork_without_handlers,
    signal_socket,
)
from registry_tools.serving.settings import Settings

_log = logging.getLogger(__name__)

_MIN_UPTIME = 10.0  # seconds; a process that ran for a shorter time is restarted with a delay
_MAX_BACKOFF = 30.0
_START_SECONDS = 60.0  # in addition to the time to load a version; then a process that is not ready is killed
_END_SECONDS = 5.0  # in addition to the time that a request may take
_MOST_BYTES = 1 << 16
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


@dataclass(eq=False)
class Child:
    """A process that the supervisor keeps running."""

    name: str
    run: Callable[[Control], int]
    serves: bool
    pid: int | None = None
    connection: socket.socket | None = None
    unread: bytes = b""
    began: float = 0.0
    error: str | None = None  # the last error that it sent
    ready: bool = False
    polls_when_ready: bool = False  # since it was still starting when all workers were to poll
    delay: float = 0.0  # seconds before the next start
    due: float | None = None  # the time of the next start


class Supervisor:
    """Starts, restarts and ends the processes of a server."""

    def __init__(self, settings: Settings, listening: socket.socket, folder: ProcessFolder) -> None:
        self._settings = settings
        self._listening = listening
        feed, receiver = make_feed() if settings.shadow else (None, None)
        serve = partial(worker.run, settings, listening, feed, folder)
        self._children = [Child("worker", serve, serves=True) for _ in range(settings.workers)]
        if receiver is not None:
            shadow = partial(shadow_process.run, settings, receiver, folder)
            self._children.append(Child("shadow", shadow, serves=False))
        self._trials: dict[int, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._has_served = False
        self._announced = False
        self._kill_at: float | None = None  # set while the server ends
        self._error: str | None = None

    def run(self) -> int:
        """Serve until a signal.

        Raises
        ------
        RegistryToolsError
            If the first worker cannot serve a version.
        """
        with signal_socket(_SIGNALS) as receiver:
            self._selector.register(receiver, selectors.EVENT_READ, lambda: self._on_signals(receiver))
            self._children[0].due = 0.0  # the others start when it is ready
            while any(child.pid is not None or child.due is not None for child in self._children):
                self._start_due()
                for key, _ in self._selector.select(1.0):
                    key.data()
                self._kill_late()
        if self._error is not None:
            raise RegistryToolsError(self._error)
        return 0

    def _on_signals(self, receiver: socket.socket) -> None:
        numbers = set(receiver.recv(_MOST_BYTES))
        if numbers & {signal.SIGTERM, signal.SIGINT}:
            self._end()
        if signal.SIGHUP in numbers:
            self._poll_at_once()
        self._reap()

    def _poll_at_once(self, but: Child | None = None) -> None:
        for child in self._children:
            if child.pid is not None and child is not but:
                child.polls_when_ready = not child.ready
                if child.ready:
                    os.kill(child.pid, signal.SIGHUP)

    def _end(self) -> None:
        if self._kill_at is None:
            self._listening.close()
            self._kill_at = time.monotonic() + self._settings.timeout + _END_SECONDS
        for pid in self._trials:
            os.kill(pid, signal.SIGKILL)
            _kill_group(pid)
        for child in self._children:
            child.due = None
            if child.pid is not None:
                os.kill(child.pid, signal.SIGTERM)

    def _kill_late(self) -> None:
        now, longest = time.monotonic(), self._settings.load_seconds + _START_SECONDS
        for child in self._children:
            starts_too_long = not child.ready and now - child.began > longest
            ends_too_late = self._kill_at is not None and now > self._kill_at
            if child.pid is not None and (starts_too_long or ends_too_late):
                os.kill(child.pid, signal.SIGKILL)

    def _start_due(self) -> None:
        for child in self._children:
            if child.due is not None and child.due <= time.monotonic():
                child.due = None
                self._start(child)

    def _start(self, child: Child) -> None:
        child.began, child.unread, child.error, child.polls_when_ready = time.monotonic(), b"", None, False
        try:
            child.connection, theirs = socket.socketpair()
            with theirs:
                child.pid = self._fork(partial(self._run_child, child, theirs), keep=theirs)
        except OSError as error:
            _log.warning("a %s cannot be started: %s", child.name, error.strerror)
            self._close_connection(child)
            self._start_later(child)
            return
        child.connection.setblocking(False)
        self._selector.register(child.connection, selectors.EVENT_READ, lambda: self._on_message(child))

    def _fork(self, run: Callable[[], int], keep: socket.socket) -> int:
        """Run a function in a new process, which closes all connections except `keep`."""
        sys.stdout.flush()
        sys.stderr.flush()
        pid = fork_without_handlers(_SIGNALS)
        if pid:
            return pid
        code = 1
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
            for key in list(self._selector.get_map().values()):
                if isinstance(key.fileobj, socket.socket):
                    key.fileobj.close()
            for each in set(self._trials.values()) - {keep}:
                each.close()
            self._selector.close()
            code = run()
        except BaseException:  # noqa: BLE001 - the last place that can report an error of this process
            _log.exception("a process of the server failed")
        finally:
            sys.stderr.flush()
            os._exit(code)

    def _run_child(self, child: Child, connection: socket.socket) -> int:
        self._close_connection(child)  # otherwise the child would not notice the end of the parent
        control = Control(connection, self._has_served)
        try:
            return child.run(control)
        except RegistryToolsError as error:
            control.send_error(str(error))
            return 1

    def _on_message(self, child: Child) -> None:
        if child.connection is None:  # the child has ended, and its messages were read
            return
        content, descriptors, _, _ = socket.recv_fds(child.connection, _MOST_BYTES, 8)
        if not content:
            self._close_connection(child)
            return
        *lines, child.unread = (child.unread + content).split(b"\n")
        connections = [socket.socket(fileno=number) for number in descriptors]
        for line in lines:
            message = json.loads(line)
            if "ready" in message:
                self._on_ready(child, message["ready"])
            elif "error" in message:
                child.error = message["error"]
            elif "refresh" in message:
                self._poll_at_once(but=child)
            elif "try" in message:
                self._start_trial(ModelArtifact.from_json(message["try"]), connections.pop(0))

    def _close_connection(self, child: Child) -> None:
        if child.connection is not None:
            with contextlib.suppress(KeyError, ValueError):  # it is not registered yet
                self._selector.unregister(child.connection)
            child.connection.close()
            child.connection = None

    def _on_ready(self, child: Child, served: str) -> None:
        child.ready = True
        self._has_served |= child.serves
        if child.polls_when_ready and child.pid is not None:
            os.kill(child.pid, signal.SIGHUP)
        for each in self._children:
            if each.pid is None and not each.began:
                each.due = 0.0
        if not self._announced and all(each.ready for each in self._children if each.serves):
            self._announced = True
            announce(self._settings, self._listening, served)

    def _start_trial(self, artifact: ModelArtifact, connection: socket.socket) -> None:
        if self._kill_at is not None:
            connection.close()
            return
        parent = os.getpid()

        def run() -> int:
            end_with_parent(parent)
            os.setsid()
            self._listening.close()  # a trial that outlives the server must not keep its port
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), 1)
                os.dup2(nowhere.fileno(), 2)
            error = try_version(artifact, self._settings.policy, self._settings.trial_limits)
            connection.sendall(json.dumps({"error": error}).encode())
            return 0

        try:
            self._trials[self._fork(run, keep=connection)] = connection
        except OSError as error:
            with connection, contextlib.suppress(OSError):
                connection.sendall(json.dumps({"error": f"no trial: {error.strerror}"}).encode())

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            if pid in self._trials:
                _kill_group(pid)
                with self._trials.pop(pid) as connection, contextlib.suppress(OSError):
                    if code != 0:
                        connection.sendall(json.dumps({"exit_code": code}).encode())
            for child in [each for each in self._children if each.pid == pid]:
                self._on_exit(child, code)

    def _on_exit(self, child: Child, code: int) -> None:
        with contextlib.suppress(BlockingIOError):  # a process that the child forked still has the connection
            while child.connection is not None:  # read its last messages
                self._on_message(child)
        self._close_connection(child)
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            multiprocess.mark_process_dead(child.pid)  # type: ignore[no-untyped-call]
        child.pid, child.ready = None, False
        if self._kill_at is not None:
            return
        reason = child.error or f"its process ended with {describe_exit(code)}"
        if child.serves and not self._has_served:
            self._error = child.error or f"no worker can serve: {reason}"
            self._end()
            return
        _log.warning("a %s is restarted: %s", child.name, reason)
        self._start_later(child)

    def _start_later(self, child: Child) -> None:
        now = time.monotonic()
        ran_long = now - child.began > _MIN_UPTIME
        child.delay = 0.0 if ran_long else min(max(child.delay * 2, 0.5), _MAX_BACKOFF)
        child.due = now + child.delay


def _kill_group(pid: int) -> None:
    """Kill the processes that a trial started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
