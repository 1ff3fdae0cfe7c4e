"""Calls of a function as tasks of a Spark cluster."""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Callable, Iterator
from typing import TypeVar

from registry_tools.processes import call_in_process

Argument = TypeVar("Argument")
Result = TypeVar("Result")


@contextlib.contextmanager
def calls_on_spark(function: Callable[[Argument], Result]) -> Iterator[Callable[[Argument, float], Result]]:
    """Yield the function as a task of Spark, with its longest time in seconds; tasks end with the body.

    The function is sent to the executors once. A call that takes too long raises `TimeoutError`, and any
    other exception of Spark means that a task did not end well.
    """
    from pyspark.sql import SparkSession

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # Spark would take any `python3`
    context = SparkSession.builder.appName("registry-pipeline").getOrCreate().sparkContext
    shared = context.broadcast(function)

    def call(argument: Argument, seconds: float) -> Result:
        def task(each: Argument) -> Result | BaseException:
            try:
                if math.isinf(seconds):
                    return shared.value(each)
                return call_in_process(shared.value, each, seconds)
            except (TimeoutError, ChildProcessError) as error:
                return error

        result = context.parallelize([argument], 1).map(task).collect()[0]
        if isinstance(result, (TimeoutError, ChildProcessError)):
            raise result
        return result

    try:
        yield call
    finally:
        context.cancelAllJobs()
