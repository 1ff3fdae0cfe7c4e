"""The server in several processes: one follows the stage and restarts the workers, which serve."""

from __future__ import annotations

import asyncio
import itertools
import logging
import signal
import socket
import sys
import time
from typing import Any

import uvloop
from prometheus_client import multiprocess

from registry_tools.errors import RegistryToolsError, VerificationError
from registry_tools.inference.model_artifact import ModelArtifact
from registry_tools.processes import encode_message, receive_message
from registry_tools.serving.observers.metrics import Metrics
from registry_tools.serving.observers.shadow import Shadow
from registry_tools.serving.processes import lifecycle
from registry_tools.serving.processes.http_server import BACKLOG
from registry_tools.serving.rollout.stage_follower import StageFollower, artifact_fetcher_for
from registry_tools.serving.settings import Settings

_log = logging.getLogger(__name__)

_MIN_UPTIME = 10.0  # seconds; a worker that ran no longer is not restarted at once
_MAX_BACKOFF = 30.0
_COMMAND_SECONDS = 150.0  # longer than the follower waits for a version to load


class RemoteWorker:
    """A worker in a process of its own, as a target of rollouts."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.began = time.monotonic()
        self.ready = asyncio.Event()
        self.connection: asyncio.Task[None] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._numbers = itertools.count()
        self._pending: dict[int, asyncio.Future[str | None]] = {}

    async def read_messages(
        self, control: socket.socket, settings: Settings, follower: StageFollower
    ) -> None:
        """Read the messages of the worker until it exits."""
        reader, self._writer = await asyncio.open_connection(sock=control)
        self._writer.write(encode_message({"settings": settings.to_json()}))
        refreshing: set[asyncio.Task[None]] = set()
        try:
            while received := await receive_message(reader):
                message, _ = received
                if message.get("command") == "ready":
                    self.ready.set()
                elif message.get("command") == "refresh":
                    task = asyncio.create_task(self._refresh(message["id"], follower))
                    refreshing.add(task)
                    task.add_done_callback(refreshing.discard)
                else:
                    self._resolve(message["id"], message["error"])
        except ConnectionError:
            pass  # it was killed; `_restart_on_exit` logs it
        finally:
            self._writer.close()
            self._writer = None
            for number in list(self._pending):
                self._resolve(number, "the worker exited")
            self.ready.set()

    def _resolve(self, number: int, error: str | None) -> None:
        future = self._pending.pop(number, None)
        if future is not None and not future.done():  # else it was cancelled
            future.set_result(error)

    async def _refresh(self, number: int, follower: StageFollower) -> None:
        await follower.refresh()
        self._send({"command": "refreshed", "id": number})

    def _send(self, message: dict[str, Any]) -> bool:
        if self._writer is None:
            return False
        self._writer.write(encode_message(message))
        return True

    async def _run_command(self, command: str, artifact: ModelArtifact) -> str | None:
        number = next(self._numbers)
        future = self._pending[number] = asyncio.get_running_loop().create_future()
        if not self._send({"id": number, "command": command, "artifact": artifact.to_json()}):
            del self._pending[number]
            return "the worker has exited"
        try:
            return await asyncio.wait_for(future, _COMMAND_SECONDS)
        except asyncio.TimeoutError:
            return f"the worker did not respond within {_COMMAND_SECONDS:g} s"
        finally:
            self._pending.pop(number, None)

    async def prepare(self, artifact: ModelArtifact) -> None:
        """Load and check a version beside the served one; raises VerificationError."""
        error = await self._run_command("prepare", artifact)
        if error is not None:
            raise VerificationError(error)

    async def swap(self, artifact: ModelArtifact) -> None:
        """Serve the prepared version from here on; a worker that does not is killed."""
        error = await self._run_command("swap", artifact)
        if error is not None and self.process.returncode is None:
            _log.warning("worker %d is killed: %s", self.process.pid, error)
            self.process.kill()

    async def drop(self, artifact: ModelArtifact) -> None:
        """Forget a prepared version."""
        await self._run_command("drop", artifact)

    def report_status(self, state: dict[str, Any]) -> None:
        """Send the state of the rollout."""
        self._send({"command": "report_status", "state": state})

    def end(self) -> None:
        """Let it finish what is in flight, and end."""
        self._send({"command": "end"})


class Supervisor:
    """Starts workers, and restarts them."""

    def __init__(self, settings: Settings, listening: socket.socket) -> None:
        metrics = Metrics()
        self._settings = settings
        self._listening = listening
        self._fetcher = artifact_fetcher_for(settings)
        self._serving: list[RemoteWorker] = []
        self._follower = StageFollower(self._fetcher, lambda: self._serving, metrics, settings.poll)
        self._ending = asyncio.Event()
        self._shadow: Shadow | None = None
        if settings.shadow is not None:
            self._shadow = Shadow(settings, self._follower.report_shadow)

    async def run(self) -> int:
        """Serve until a signal."""
        lifecycle.stop_on_signals(self._ending.set)
        tasks = []
        try:
            self._serving = await asyncio.gather(
                *(self._start_worker() for _ in range(self._settings.workers))
            )
            artifact = await lifecycle.run_unless_stopped(self._follower.start(), self._ending)
            if artifact is None:
                return 0
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._follower.wake)
            lifecycle.settle_memory()
            self._listening.listen(BACKLOG)
            lifecycle.announce(self._settings, self._listening, str(artifact))
            tasks = [asyncio.create_task(self._restart_on_exit(worker)) for worker in self._serving]
            tasks.append(asyncio.create_task(self._follower.follow()))
            if self._shadow is not None:
                tasks.append(asyncio.create_task(self._shadow.run()))
            await self._ending.wait()
        finally:
            for task in tasks:
                task.cancel()
            await self._end()
            if self._shadow is not None:
                await self._shadow.end()
            self._fetcher.close()
        return 0

    async def _start_worker(self) -> RemoteWorker:
        ours, theirs = socket.socketpair()
        descriptors = [theirs.fileno(), self._listening.fileno()]
        if self._shadow is not None:
            descriptors.append(self._shadow.feed.fileno())
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "registry_tools.serving.processes.worker_process"),
            *map(str, descriptors),
            pass_fds=descriptors,
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the supervisor, which ends them
        )
        theirs.close()
        ours.setblocking(False)
        worker = RemoteWorker(process)
        worker.connection = asyncio.create_task(worker.read_messages(ours, self._settings, self._follower))
        return worker

    async def _restart_on_exit(self, worker: RemoteWorker) -> None:
        """Restart a worker whenever it exits."""
        delay = 0.0
        while True:
            code = await worker.process.wait()
            multiprocess.mark_process_dead(worker.process.pid)  # type: ignore[no-untyped-call]
            if worker in self._serving:
                self._serving.remove(worker)
            _log.warning("worker %d ended with %d and is started again", worker.process.pid, code)
            uptime = time.monotonic() - worker.began
            delay = 0.0 if uptime > _MIN_UPTIME else min(max(delay * 2, 0.5), _MAX_BACKOFF)
            await asyncio.sleep(delay)
            worker = await self._start_worker()
            await worker.ready.wait()
            try:
                await self._follower.add_target(worker, self._serving.append)
            except (RegistryToolsError, asyncio.TimeoutError) as error:
                _log.warning("worker %d cannot serve: %s", worker.process.pid, error)
                if worker.process.returncode is None:
                    worker.process.kill()

    async def _end(self) -> None:
        self._listening.close()
        workers = list(self._serving)
        for worker in workers:
            worker.end()
        waiting = [asyncio.ensure_future(worker.process.wait()) for worker in workers]
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=self._settings.timeout + 5)
            for worker in workers if late else ():
                if worker.process.returncode is None:
                    worker.process.kill()


def run(settings: Settings, listening: socket.socket) -> int:
    """Serve until a signal, and return the exit code; raises as `serve.run`."""

    async def supervise() -> int:
        return await Supervisor(settings, listening).run()

    return uvloop.run(supervise())
