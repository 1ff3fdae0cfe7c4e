"""Where trials run: in processes of this machine, or as tasks of a Spark cluster.

A process runs one trial and is killed when its time is over; the pools of joblib end all their processes
with one of them.
"""

from __future__ import annotations

import functools
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from multiprocessing.connection import Connection

from pipeline.estimators import ESTIMATORS
from pipeline.params.definitions import SweepParams
from pipeline.params.fields import as_text
from pipeline.sweep.trials import Trial, TrialResult
from registry_tools.errors import error_summary

Work = Callable[[Trial], TrialResult]
Run = Callable[[Trial, float], "TrialResult | None"]  # with seconds; None if they were not enough
# Not forks of this process, which has threads: forks of one that has only imported what trials need.
_processes = multiprocessing.get_context("forkserver")


def run_trials(
    work: Work, trials: Iterator[Trial], params: SweepParams
) -> Generator[tuple[Trial, TrialResult | None], None, None]:
    """Yield each trial with its result as it ends; None if the time of the sweep was over before.

    Parameters
    ----------
    work
        Called where trials run; it is sent there with each trial.
    trials
        Asked for the next one, in this thread, when there is a free process.
    params
        `n_jobs`, `engine`, `timeout` and `trial_timeout` are read.
    """
    most, total = (
        limit.total_seconds() if limit else math.inf for limit in (params.trial_timeout, params.timeout)
    )
    if params.engine == "local" and params.n_jobs == 1 and math.isinf(min(most, total)):
        yield from ((trial, work(trial)) for trial in trials)
        return
    run, stop = _on_spark(work) if params.engine == "spark" else _in_processes(work)
    deadline = time.monotonic() + total
    running: dict[Future[TrialResult | None], Trial] = {}
    with ThreadPoolExecutor(params.n_jobs) as pool:
        try:
            while True:
                while len(running) < params.n_jobs and time.monotonic() < deadline:
                    if (trial := next(trials, None)) is None:
                        break
                    running[pool.submit(run, trial, min(most, deadline - time.monotonic()))] = trial
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    result, trial = future.result(), running.pop(future)
                    if result is None and time.monotonic() < deadline:
                        late = f"took longer than trial_timeout={as_text(params.trial_timeout)}"
                        result = TrialResult({}, failure=late)
                    yield trial, result
        finally:
            stop()


def _in_processes(work: Work) -> tuple[Run, Callable[[], None]]:
    modules = {spec.factory.partition(":")[0] for spec in ESTIMATORS.values()}
    _processes.set_forkserver_preload([__name__, *sorted(modules)])
    first = _processes.Process(target=os.getpid)  # imports are not part of the time of a trial
    first.start()
    first.join()

    def stop() -> None:
        for child in multiprocessing.active_children():
            child.kill()

    return functools.partial(_run_in_process, work), stop


def _run_in_process(work: Work, trial: Trial, seconds: float) -> TrialResult | None:
    ours, theirs = _processes.Pipe(duplex=False)
    child = _processes.Process(target=_send_result, args=(theirs, work, trial))
    child.start()
    theirs.close()
    try:
        return ours.recv() if ours.poll(None if math.isinf(seconds) else seconds) else None
    except EOFError:
        return TrialResult({}, failure="its process was ended from outside, such as for want of memory")
    finally:
        child.kill()
        child.join()


def _send_result(connection: Connection, work: Work, trial: Trial) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends this process
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    connection.send(work(trial))


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _on_spark(work: Work) -> tuple[Run, Callable[[], None]]:
    from pyspark.sql import SparkSession

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # Spark would take any `python3`
    context = SparkSession.builder.appName("sweep").getOrCreate().sparkContext
    shared = context.broadcast(work)

    def run(trial: Trial, seconds: float) -> TrialResult | None:
        def call(each: Trial) -> TrialResult | None:
            return shared.value(each) if math.isinf(seconds) else _run_in_process(shared.value, each, seconds)

        try:
            return context.parallelize([trial], 1).map(call).collect()[0]
        except Exception as error:  # noqa: BLE001 - whatever ends a task of Spark is the result of its trial
            return TrialResult({}, failure=error_summary(error, 500))

    return run, context.cancelAllJobs
