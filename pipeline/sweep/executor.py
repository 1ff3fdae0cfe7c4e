"""Where trials run: in processes of this machine, or on the executors of a Spark cluster."""

from __future__ import annotations

import functools
import itertools
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TypeVar

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError

from pipeline.errors import PipelineError

Task = TypeVar("Task")
Result = TypeVar("Result")


class WorkerTerminated(PipelineError):
    """A process that worked on tasks was ended from outside, such as for want of memory."""


def run_trials(
    work: Callable[[Task], Result], tasks: Iterable[Task], n_jobs: int, engine: str
) -> Generator[tuple[Task, Result], None, None]:
    """Yield each trial with its result, as it ends.

    Parameters
    ----------
    work
        Called in the processes; it and the tasks are sent there.
    tasks
        Asked for the next one when there is a free process.
    n_jobs
        How many run at the same time.
    engine
        "local" or "spark".

    Raises
    ------
    WorkerTerminated
        If a process ended by itself.
    """
    if engine == "spark":
        yield from _run_on_spark(work, tasks, n_jobs)
        return
    parallel = joblib.Parallel(
        n_jobs=n_jobs, return_as="generator_unordered", pre_dispatch=n_jobs, batch_size=1
    )
    try:
        yield from parallel(joblib.delayed(_run_locally)(os.getpid(), work, task) for task in tasks)
    except TerminatedWorkerError as error:
        raise WorkerTerminated("a process was ended from outside, such as for want of memory") from error


def _run_locally(parent: int, work: Callable[[Task], Result], task: Task) -> tuple[Task, Result]:
    if os.getpid() != parent:
        _exit_with_parent(parent)
    return _run_trial(work, task)


@functools.cache
def _exit_with_parent(parent: int) -> None:
    """Have this process end when the one that started it is killed; of itself it would not."""

    def watch_parent() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch_parent, daemon=True).start()


def _run_trial(work: Callable[[Task], Result], task: Task) -> tuple[Task, Result]:
    return task, work(task)


def _run_on_spark(
    work: Callable[[Task], Result], tasks: Iterable[Task], n_jobs: int
) -> Iterator[tuple[Task, Result]]:
    """Yield the results, `n_jobs` after `n_jobs`: this backend returns lists."""
    from joblibspark import register_spark

    # Spark would take whatever `python3` is on the PATH of its workers.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    register_spark()
    remaining = iter(tasks)
    while batch := list(itertools.islice(remaining, n_jobs)):
        calls = (joblib.delayed(_run_trial)(work, task) for task in batch)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Spark's own making
            with joblib.parallel_config("spark", n_jobs=n_jobs):
                results = joblib.Parallel(n_jobs=n_jobs)(calls)
        yield from results


def check_spark() -> None:
    """Refuse where Spark cannot run, before anything is begun.

    Raises
    ------
    UnsupportedOperation
        If its packages or Java are missing; says how to install them.
    """
    from registry_tools.spark import check_installed

    check_installed()
