"""Record the steps of a traced request: decode, queue, predict, encode."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

Interval = tuple[int, int]  # nanoseconds since 1970


@dataclass
class RequestSteps:
    """The start of a request and of its steps, in nanoseconds since 1970; a step ends the previous one."""

    began: int = field(default_factory=time.time_ns)
    marks: list[tuple[str, int]] = field(default_factory=list)

    def begin(self, step: str) -> None:
        """Begin a step now."""
        self.marks.append((step, time.time_ns()))

    def intervals(self, ended: int) -> list[tuple[str, Interval]]:
        """Return the steps of a request in order, with their intervals; the last one ends at `ended`."""
        return [
            (step, (began, until))
            for (step, began), (following, until) in itertools.pairwise([*self.marks, ("", ended)])
            if (step, following) != ("encode", "queue")  # the request calls the model again
        ]


# The steps of the current request, whose task has its own context; None if it is not traced.
current_steps: ContextVar[RequestSteps | None] = ContextVar("current_steps", default=None)


def begin_queue() -> RequestSteps | None:
    """Begin the step `queue` of the current request, and return its steps; None if it is not traced."""
    steps = current_steps.get()
    if steps is not None:
        steps.begin("queue")
    return steps


def call_model(requests: Iterable[RequestSteps | None], function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function that predicts for requests, and record their steps `predict` and `encode`."""
    traced = [steps for steps in requests if steps is not None]
    for steps in traced:
        steps.begin("predict")
    try:
        return function(*arguments)
    finally:
        for steps in traced:
            steps.begin("encode")
