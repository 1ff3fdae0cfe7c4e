"""Evaluate the trials of a sweep, in this process, in others or on Spark.

A process runs one trial, so that it can be killed when its time is over. The pools of joblib cannot do
that: they end all their processes with one of them.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from itertools import islice

import pandas as pd
from threadpoolctl import threadpool_limits

from pipeline.data.dataset import Dataset
from pipeline.estimators import ESTIMATORS
from pipeline.params.definitions import ALL_MODELS, SweepParams
from pipeline.training.fit_pipeline import cross_validate
from pipeline.training.model_card import Trial
from registry_tools.errors import error_summary, first_line
from registry_tools.processes import calls_in_processes, calls_on_spark


def evaluate_trial(trial: Trial, features: pd.DataFrame, training: Dataset) -> Trial:
    """Return a trial with its result by cross-validation; an exception of the estimator is its failure.

    Parameters
    ----------
    trial
        The parameters of its training.
    features
        All rows, only for their types and missing values.
    training
        The rows of the cross-validation. Held-out rows are never seen here.
    """
    began = time.perf_counter()
    try:
        # One thread: trials share the cores among them, and sums are the same wherever they run.
        with warnings.catch_warnings(record=True) as caught, threadpool_limits(1):
            warnings.simplefilter("always")
            metrics = cross_validate(trial.params, features, training)
    except Exception as error:  # noqa: BLE001 - any error of an estimator is the result of its trial
        return replace(trial, failure=error_summary(error, 500))
    metrics["seconds"] = time.perf_counter() - began
    return replace(trial, metrics=metrics, warning=first_line(caught[0].message) if caught else None)


def run_trials(
    work: Callable[[Trial], Trial], trials: Iterator[Trial], params: SweepParams
) -> Generator[Trial, None, None]:
    """Yield each trial with its result as it ends, except trials that the `timeout` of the sweep ends.

    Parameters
    ----------
    work
        Called where trials run; it is sent there.
    trials
        Asked for the next one, in this thread, when there is a free process.
    params
        `n_jobs`, `engine`, `timeout` and `trial_timeout` are read.
    """
    most, total = (t.total_seconds() if t else math.inf for t in (params.trial_timeout, params.timeout))
    if params.engine == "local" and params.n_jobs == 1 and most == total == math.inf:
        yield from map(work, trials)
        return
    deadline = time.monotonic() + total
    models = ESTIMATORS if params.model == ALL_MODELS else [params.model]
    factories = [ESTIMATORS[model].factory_of(params.task) for model in models]
    modules = [__name__, *(factory.partition(":")[0] for factory in factories if factory)]
    calls = calls_on_spark(work) if params.engine == "spark" else calls_in_processes(work, modules)
    running: dict[Future[Trial], Trial] = {}
    with ThreadPoolExecutor(params.n_jobs) as pool, calls as call:
        while True:
            free = params.n_jobs - len(running) if time.monotonic() < deadline else 0
            for trial in islice(trials, free):
                running[pool.submit(call, trial, min(most, deadline - time.monotonic()))] = trial
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                trial, error = running.pop(future), future.exception()
                if error is None:
                    yield future.result()
                elif not isinstance(error, TimeoutError) or time.monotonic() < deadline:
                    yield replace(trial, failure=error_summary(error, 500))
