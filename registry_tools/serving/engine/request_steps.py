"""The steps of a request that is traced: decode, queue, predict, encode."""

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
    """When a request began, and each of its steps, in nanoseconds since 1970; a step ends the one before."""

    began: int = field(default_factory=time.time_ns)
    marks: list[tuple[str, int]] = field(default_factory=list)

    def begin(self, step: str) -> None:
        """Begin a step now."""
        self.marks.append((step, time.time_ns()))

    def intervals(self, ended: int) -> list[tuple[str, Interval]]:
        """Return the steps, in their order, of a request that ended then."""
        return [
            (step, (began, until))
            for (step, began), (following, until) in itertools.pairwise([*self.marks, ("", ended)])
            if (step, following) != ("encode", "queue")  # the model is called again
        ]


# None for a request that is not traced. Each request runs in a task, with a context of its own.
current_steps: ContextVar[RequestSteps | None] = ContextVar("current_steps", default=None)


def begin_queue() -> RequestSteps | None:
    """Begin to wait for the model, and return the steps of this request."""
    steps = current_steps.get()
    if steps is not None:
        steps.begin("queue")
    return steps


def call_model(requests: Iterable[RequestSteps | None], function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function that predicts for some requests; they encode afterwards."""
    traced = [steps for steps in requests if steps is not None]
    for steps in traced:
        steps.begin("predict")
    try:
        return function(*arguments)
    finally:
        for steps in traced:
            steps.begin("encode")
