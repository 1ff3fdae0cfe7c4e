"""The worker processes: started, sent batches side by side, their results put in order, ended."""

from __future__ import annotations

import contextlib
import functools
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
from typing import Any, TypeVar

from registry_tools.batch.engines import messages
from registry_tools.batch.predictions import BatchResult
from registry_tools.batch.readers.file_identity import FileIdentity
from registry_tools.batch.readers.read_rows import Batch
from registry_tools.errors import RegistryToolsError
from registry_tools.inference.model_artifact import ModelArtifact
from registry_tools.models.formats import describe
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.processes import Message, describe_exit, read_message, write_message

_HOME = Path(__file__).parents[3]
_AHEAD = 2  # batches for each worker that are read before the first is written
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")

_Work = TypeVar("_Work")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class RowGroup:
    """A row group that a worker reads by itself, and the file for its predictions."""

    file: FileIdentity
    index: int
    first_row: int  # in the file
    output: str


@dataclass(frozen=True)
class RowGroupResult:
    """What a worker reports of a row group."""

    rows: int
    counts: dict[str, int]
    bad_row: tuple[int, str] | None = None  # the first that cannot be scored, and why


def available_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class ProcessPool:
    """Worker processes, each with one thread here that talks to it."""

    def __init__(self, workers: int) -> None:
        """Start them; they import what they need while the version is resolved."""
        path = (str(_HOME), os.environ.get("PYTHONPATH"))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}
        environment |= dict.fromkeys(_ONE_THREAD, "1")
        self._processes: list[subprocess.Popen[bytes]] = []
        self._version = "the version"  # until `load` names it
        try:
            for _ in range(workers):
                self._processes.append(_start_process(environment))
        except OSError as error:
            self.close()
            raise RegistryToolsError(f"no worker can be started: {error.strerror}") from error
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        for process in self._processes:
            self._idle.put(process)
        self._threads = ThreadPoolExecutor(workers, "worker")

    def load(self, artifact: ModelArtifact, policy: TrustPolicy, proba: bool, text: bool) -> list[str]:
        """Have every worker load a version whose files were verified; return what `proba` adds.

        Raises
        ------
        VerificationError
            If it holds untrusted types, or does not reproduce its recorded predictions.
        """
        self._version = str(artifact)
        self._columns = [column.name for column in describe(artifact.model).signature or ()]
        head = {
            "kind": messages.LOAD,
            "source": artifact.to_json(),
            "trust": policy.types,
            "allow_code": policy.allow_code,
            "public_key": str(policy.public_key) if policy.public_key else None,
            "proba": proba,
            "text": text,
        }
        for process in self._processes:
            _send(process, head, version=self._version)
        replies = [_receive(process, version=self._version)[0] for process in self._processes]
        added: list[list[str]] = [reply["columns"] for reply in replies]
        return added[0]

    def predict(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, BatchResult]]:
        """Yield each batch with its predictions, in order; a few are read ahead."""
        return self._map_in_order(self._predict_batch, batches)

    def predict_row_groups(
        self, groups: Iterable[RowGroup], progress: Callable[[int], None]
    ) -> Iterator[tuple[RowGroup, RowGroupResult]]:
        """Yield each row group with its result, in order.

        Parameters
        ----------
        groups
            What is to be read and predicted.
        progress
            Receives the number of rows predicted since it was called last, from one thread at a
            time, before their group is whole: it may take long.
        """
        lock = threading.Lock()

        def report(rows: int) -> None:
            with lock:
                progress(rows)

        return self._map_in_order(functools.partial(self._predict_row_group, report), groups)

    def _map_in_order(
        self, function: Callable[[_Work], _Result], everything: Iterable[_Work]
    ) -> Iterator[tuple[_Work, _Result]]:
        waiting: deque[tuple[_Work, Future[_Result]]] = deque()
        for one in everything:
            waiting.append((one, self._threads.submit(function, one)))
            if len(waiting) > _AHEAD * len(self._processes):
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()

    def _predict_batch(self, batch: Batch) -> BatchResult:
        names = [name for name in self._columns if name in batch.rows.schema.names]
        rows = messages.rows_to_buffer(batch.rows.select(names))
        head, body = self._request({"kind": messages.ROWS}, rows)
        return messages.rows_from_bytes(body), dict(head["bad"])

    def _predict_row_group(self, report: Callable[[int], None], group: RowGroup) -> RowGroupResult:
        request = {
            "kind": messages.ROW_GROUP,
            "path": os.path.abspath(group.file.path),
            "name": group.file.name,
            "fingerprint": group.file.fingerprint,
            "index": group.index,
            "output": group.output,
        }
        result, _ = self._request(request, report=report)
        report(result["unreported"])
        bad_row = tuple(result["bad_row"]) if result["bad_row"] else None
        return RowGroupResult(result["rows"], result["counts"], bad_row)

    def _request(
        self, head: dict[str, Any], body: Any = b"", report: Callable[[int], None] | None = None
    ) -> Message:
        process = self._idle.get()
        try:
            _send(process, head, body, self._version)
            return _receive(process, report, self._version)
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


def _start_process(environment: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "registry_tools.batch.engines.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # Whatever lies in the caller's folder is not imported.
        cwd=_HOME,
        env=environment,
        pipesize=1 << 20 if sys.platform == "linux" else -1,
    )


def _send(
    process: subprocess.Popen[bytes], head: dict[str, Any], body: Any = b"", version: str = "the version"
) -> None:
    assert process.stdin is not None
    try:
        write_message(process.stdin, head, body)
    except BrokenPipeError:
        raise _worker_ended(process, version) from None


def _receive(
    process: subprocess.Popen[bytes],
    report: Callable[[int], None] | None = None,
    version: str = "the version",
) -> Message:
    """Return the result of a worker; `report` receives its progress until then.

    Raises
    ------
    RegistryToolsError
        The error that it reports; or that it has ended, killed for want of memory perhaps.
    """
    assert process.stdout is not None
    while (message := read_message(process.stdout)) and message[0]["kind"] == messages.PROGRESS:
        if report is not None:
            report(message[0]["rows"])
    if message is None:
        raise _worker_ended(process, version)
    head, _ = message
    if head["kind"] == messages.ERROR:
        types = {error.__name__: error for error in RegistryToolsError.__subclasses__()}
        raise types.get(head["type"], RegistryToolsError)(head["message"])
    return message


def _worker_ended(process: subprocess.Popen[bytes], version: str) -> RegistryToolsError:
    ended = describe_exit(process.wait())
    return RegistryToolsError(
        f"a worker ended by itself ({ended}) with {version}: if memory is short, ask for fewer with "
        "--workers; if it ends again, score with another version"
    )
