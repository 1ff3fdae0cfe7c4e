"""The processes that answer: started, asked side by side, answered in order, ended."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import queue
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import pyarrow as pa

from registry_tools import errors
from registry_tools.batch.engines.messages import (
    ANSWER,
    ERROR,
    GROUP,
    PROGRESS,
    ROWS,
    TOLD,
    packed,
    receive,
    send,
    unpacked,
)
from registry_tools.batch.readers.file_identity import Mark
from registry_tools.batch.readers.read_rows import Batch, columns_of
from registry_tools.errors import RegistryToolsError
from registry_tools.models.formats import describe

if TYPE_CHECKING:
    from registry_tools.inference.model_artifact import ModelArtifact
    from registry_tools.models.trust_policy import TrustPolicy

_HOME = Path(__file__).parents[3]
_AHEAD = 2  # batches for each worker that are read before the first is written
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")

_Asked = TypeVar("_Asked")
_Got = TypeVar("_Got")
BatchResult = tuple[pa.RecordBatch, "dict[int, str]"]  # columns of answers; which rows have none


@dataclass(frozen=True)
class Group:
    """A row group that a worker reads by itself, and the file for its answers."""

    path: str
    shown: str  # the path, as errors name it
    mark: Mark  # of the file that is meant
    place: int
    first: int  # its first row in the file
    part: str


@dataclass(frozen=True)
class Told:
    """What a worker tells of a row group."""

    rows: int
    counts: dict[str, int]
    bad: tuple[int, str] | None = None  # the first row that cannot be scored, and why


class Engine(Protocol):
    """What answers batches."""

    def load(
        self, artifact: ModelArtifact, policy: TrustPolicy, proba: bool, text: bool
    ) -> list[str]:
        """Load a version; return the columns that `proba` adds."""

    def answer(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, BatchResult]]:
        """Yield each batch with its answers, in the order of the batches."""

    def close(self) -> None:
        """End."""


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Pool:
    """Worker processes, each with one thread here that talks to it."""

    def __init__(self, workers: int) -> None:
        """Start them; they import what they need while the version is looked for."""
        path = (str(_HOME), os.environ.get("PYTHONPATH"))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}
        environment |= dict.fromkeys(_ONE_THREAD, "1")
        self._processes: list[subprocess.Popen[bytes]] = []
        try:
            for _ in range(workers):
                self._processes.append(_started(environment))
        except OSError as error:
            self.close()
            raise RegistryToolsError(f"no worker can be started: {error.strerror}") from error
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        for process in self._processes:
            self._idle.put(process)
        self._threads = ThreadPoolExecutor(workers, "worker")

    def load(
        self, artifact: ModelArtifact, policy: TrustPolicy, proba: bool, text: bool
    ) -> list[str]:
        """Have every worker load a version whose files were verified; return what `proba` adds.

        Raises
        ------
        VerificationError
            If it holds what is not trusted, or does not answer as was recorded.
        """
        self._columns = [column.name for column in describe(artifact.model).signature or ()]
        told = {
            "source": artifact.to_json(),
            "trust": policy.types,
            "allow_code": policy.allow_code,
            "public_key": str(policy.public_key) if policy.public_key else None,
            "proba": proba,
            "text": text,
        }
        for process in self._processes:
            _say(process, TOLD, json.dumps(told).encode())
        added: list[list[str]] = [json.loads(_hear(process)) for process in self._processes]
        return added[0]

    def answer(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, BatchResult]]:
        """Yield each batch with its answers, in order; a few are read ahead."""
        return self._in_order(self._ask, batches)

    def answer_groups(
        self, groups: Iterable[Group], progress: Callable[[int], None]
    ) -> Iterator[tuple[Group, Told]]:
        """Yield each row group with what is told of it, in order.

        Parameters
        ----------
        groups
            What is to be read and answered.
        progress
            Is told of rows that were answered, from one thread at a time, before their group is
            whole: it may take long.
        """
        lock = threading.Lock()

        def tell(rows: int) -> None:
            with lock:
                progress(rows)

        return self._in_order(functools.partial(self._ask_group, tell), groups)

    def _in_order(
        self, ask: Callable[[_Asked], _Got], everything: Iterable[_Asked]
    ) -> Iterator[tuple[_Asked, _Got]]:
        waiting: deque[tuple[_Asked, Future[_Got]]] = deque()
        for one in everything:
            waiting.append((one, self._threads.submit(ask, one)))
            if len(waiting) > _AHEAD * len(self._processes):
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()

    def _ask(self, batch: Batch) -> BatchResult:
        return unpacked(self._asked(ROWS, packed(columns_of(batch.rows, self._columns))))

    def _ask_group(self, tell: Callable[[int], None], group: Group) -> Told:
        asked = vars(group) | {"path": os.path.abspath(group.path)}
        told = json.loads(self._asked(GROUP, json.dumps(asked).encode(), tell))
        tell(told["unsaid"])
        return Told(told["rows"], told["counts"], tuple(told["bad"]) if told["bad"] else None)

    def _asked(
        self, kind: bytes, content: bytes | pa.Buffer, tell: Callable[[int], None] | None = None
    ) -> bytes:
        process = self._idle.get()
        try:
            _say(process, kind, content)
            return _hear(process, tell)
        finally:
            self._idle.put(process)

    def close(self) -> None:
        """End them, at work or not."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
        if hasattr(self, "_threads"):
            self._threads.shutdown(cancel_futures=True)


def _started(environment: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "registry_tools.batch.engines.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # Whatever lies in the caller's folder is not imported.
        cwd=_HOME,
        env=environment,
        pipesize=1 << 20 if sys.platform == "linux" else -1,
    )


def _say(process: subprocess.Popen[bytes], kind: bytes, content: bytes | pa.Buffer) -> None:
    assert process.stdin is not None
    try:
        send(process.stdin, kind, content)
    except BrokenPipeError:
        raise _ended(process) from None


def _hear(process: subprocess.Popen[bytes], tell: Callable[[int], None] | None = None) -> bytes:
    """Return what a worker answers; `tell` is told how far it is until then.

    Raises
    ------
    RegistryToolsError
        What it says that went wrong; or that it has ended, killed for want of memory perhaps.
    """
    assert process.stdout is not None
    while (message := receive(process.stdout)) is not None and message[0] == PROGRESS:
        if tell is not None:
            tell(json.loads(message[1]))
    if message is None:
        raise _ended(process)
    kind, content = message
    if kind == ERROR:
        name, said = json.loads(content)
        raise getattr(errors, name, RegistryToolsError)(said)
    assert kind in {TOLD, ANSWER}
    return content


def _ended(process: subprocess.Popen[bytes]) -> RegistryToolsError:
    code = process.wait()
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return RegistryToolsError(
        f"a worker ended by itself ({how}): if memory is short, ask for fewer with --workers"
    )
