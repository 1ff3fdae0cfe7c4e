"""The processes of a scoring job: started, given slices, and ended whatever they are doing."""

from __future__ import annotations

import contextlib
import gc
import itertools
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import pyarrow as pa

from registry_tools.batch.job import ScoringJob, SliceResult
from registry_tools.batch.slices import Slice
from registry_tools.errors import RegistryToolsError
from registry_tools.inference.model_artifact import ModelArtifact
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.processes import describe_exit, exit_with_parent, signals_blocked

_AHEAD = 2  # slices for each process that are begun before the first is done
_REPORT_SECONDS = 0.2
# Signals that end the command, which ends its processes; Windows has no SIGHUP.
_OF_THE_COMMAND = {signal.SIGINT, getattr(signal, "SIGHUP", signal.SIGINT)}
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")

_T = TypeVar("_T")
_rows_done: Any  # the counter that all processes of a job share


class WorkerPool:
    """Processes that each load the version of a job once."""

    def __init__(self, workers: int) -> None:
        """Start the processes, which import the libraries while the command resolves the version."""
        self.workers = workers
        self.version = "the version"  # as errors name it
        context = multiprocessing.get_context("spawn")
        self._rows_done = context.Value("q", 0)
        self._executor = ProcessPoolExecutor(workers, context, _start, (self._rows_done,))
        with signals_blocked(_OF_THE_COMMAND):
            for _ in range(workers):
                self._executor.submit(_import_worker)
        # The dictionary by process id: the executor adds the processes that it starts later.
        self._processes = self._executor._processes

    def run(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Call a function as many times as there are processes, and return the first result.

        Each process usually receives one of the calls.
        """
        with self._deaths_named():
            futures = [self._executor.submit(function, *arguments) for _ in range(self.workers)]
            first, *_ = [future.result() for future in futures]
            return first

    def score(
        self, job: ScoringJob, slices: Iterable[Slice], progress: Callable[[int, int], None]
    ) -> Iterator[tuple[int, SliceResult]]:
        """Yield numbers of slices and their results, in order.

        Parameters
        ----------
        job, slices
            The work.
        progress
            Receives, a few times a second, how much of the input is done, and the rows.
        """
        waiting: deque[tuple[int, Slice, Future[SliceResult]]] = deque()
        numbered, read = enumerate(slices), 0
        while True:
            for number, piece in itertools.islice(numbered, _AHEAD * self.workers - len(waiting)):
                with self._deaths_named():
                    future = self._executor.submit(_score_slice, job, number, piece)
                waiting.append((number, piece, future))
            if not waiting:
                return
            number, piece, future = waiting.popleft()
            while not wait([future], _REPORT_SECONDS).done:
                rows = self._rows_done.get_obj().value  # without its lock: a killed process may hold it
                progress(read if job.csv else rows, rows)
            with self._deaths_named():
                result = future.result()
            read = piece.bytes_read
            yield number, result

    @contextlib.contextmanager
    def _deaths_named(self) -> Iterator[None]:
        """Turn the end of a process, which breaks the pool, into an error that names the version."""
        try:
            yield
        except BrokenProcessPool:
            self._executor.shutdown()  # waits for the others, which it ends by SIGTERM
            codes = [process.exitcode for process in self._processes.values()]
            code = next((each for each in codes if each and each != -signal.SIGTERM), -signal.SIGTERM)
            raise RegistryToolsError(
                f"a worker ended by itself ({describe_exit(code)}) with {self.version}: if memory is short, "
                "ask for fewer with --workers; if it ends again, score with another version"
            ) from None

    def close(self) -> None:
        """End them, at work or not."""
        for process in list(self._processes.values()):
            process.kill()
        self._executor.shutdown(cancel_futures=True)


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _start(rows_done: Any) -> None:
    """Prepare this process, which ends when the command's process ends, however that is."""
    global _rows_done
    import threadpoolctl  # not in the command's process, which does without

    _rows_done = rows_done
    for number in _OF_THE_COMMAND:
        signal.signal(number, signal.SIG_IGN)
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))  # for libraries that are loaded later
    threadpoolctl.threadpool_limits(1)  # for those that are loaded
    os.dup2(2, 1)  # what a model prints is not the result of the command
    pa.set_cpu_count(1)
    exit_with_parent()


def _import_worker() -> None:
    """Import what predicts, which the command's process does without."""
    from registry_tools.batch import worker  # noqa: F401

    gc.freeze()


def _score_slice(job: ScoringJob, number: int, piece: Slice) -> SliceResult:
    from registry_tools.batch import worker

    return worker.score_slice(job, number, piece, _rows_done)


def prediction_schema(artifact: ModelArtifact, policy: TrustPolicy, proba: bool) -> pa.Schema:
    """Load a version in this process, and return the columns of its predictions."""
    from registry_tools.batch import worker

    return worker.prediction_schema(artifact, policy, proba)
