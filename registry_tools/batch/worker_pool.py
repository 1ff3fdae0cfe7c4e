"""The processes of a scoring job: started, given slices, which they score, and ended at any moment."""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

from registry_tools.batch.job import RowCounts, ScoringJob, ScoringRequest
from registry_tools.batch.scored_batch import score_batch
from registry_tools.batch.slices import Slice
from registry_tools.errors import RegistryToolsError
from registry_tools.files.part_files import write_part
from registry_tools.inference.model_artifact import ModelArtifact
from registry_tools.processes import describe_exit, exit_with_parent, signals_blocked

if TYPE_CHECKING:
    from registry_tools.inference.batch_predictor import BatchPredictor

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
                self._executor.submit(_import_libraries)
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
    ) -> Iterator[RowCounts]:
        """Write the parts of slices, and yield their numbers of rows in order.

        Parameters
        ----------
        job, slices
            The work.
        progress
            Receives, a few times a second, how much of the input is done, and the rows.
        """
        waiting: deque[tuple[Slice, Future[RowCounts]]] = deque()
        numbered, read = enumerate(slices), 0
        with self._deaths_named():
            while True:
                for number, piece in itertools.islice(numbered, _AHEAD * self.workers - len(waiting)):
                    waiting.append((piece, self._executor.submit(_score_slice, job, number, piece)))
                if not waiting:
                    return
                piece, future = waiting.popleft()
                while not wait([future], _REPORT_SECONDS).done:
                    rows = self._rows_done.get_obj().value  # without its lock: a killed process may hold it
                    progress(read if job.csv else rows, rows)
                read = piece.bytes_read
                yield future.result()

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


# The processes run the functions below.


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


def _import_libraries() -> None:
    """Import what predicts, which the command's process does without."""
    import skops.io  # noqa: F401

    from registry_tools.inference import batch_predictor  # noqa: F401

    gc.freeze()


@functools.lru_cache(1)
def _load(artifact: ModelArtifact, request: ScoringRequest) -> BatchPredictor:
    """Load a version once in this process."""
    from registry_tools.inference import batch_predictor

    return batch_predictor.load(artifact, request.trust_policy, request.proba)


def prediction_schema(job: ScoringJob) -> pa.Schema:
    """Load the version, and return the columns of its predictions."""
    return _load(job.artifact, job.request).schema


def _score_slice(job: ScoringJob, number: int, piece: Slice) -> RowCounts:
    """Write the rows of a slice with their predictions, and its rejects, as parts; return their numbers.

    Raises
    ------
    InputError
        If a row cannot be scored and there is no file for it, or the file is changed or broken.
    """
    counts: list[RowCounts] = []
    rejects: list[pa.RecordBatch] = []
    write_part(job.part(number), job.form, _score(job, piece, counts, rejects), job.options)
    if job.rejects_form is not None:
        write_part(job.rejects_part(number), job.rejects_form, iter(rejects), {})
    return sum(counts, RowCounts())


def _score(
    job: ScoringJob, piece: Slice, counts: list[RowCounts], rejects: list[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """Yield the rows that can be scored, with their predictions; collect counts and rejects of each step."""
    predictor = _load(job.artifact, job.request)
    begin, schema = 0, None
    for rows in piece.read(job.read):
        end = begin + rows.num_rows
        malformed = {row - begin: reason for row, reason in piece.bad.items() if begin <= row < end}
        locate = functools.partial(_locate, piece.file.name, piece.first_row + begin)
        scored, rejected, count = score_batch(job, predictor, rows, malformed, locate, schema)
        counts.append(count)
        if rejected is not None:
            rejects.append(rejected)
        if scored.num_rows:
            schema = scored.schema
            yield scored
        with _rows_done.get_lock():
            _rows_done.value += rows.num_rows
        begin = end


def _locate(file: str, first: int, row: int) -> str:
    """Return the file and the number in it of a row of a batch that begins with row `first`."""
    return f"{file}: row {first + row}"
