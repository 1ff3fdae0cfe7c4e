"""Run blocking calls in daemon threads, which do not delay the end of the process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


async def run_in_thread(function: Callable[[], T], name: str) -> T:
    """Call a function in a new thread, so that a call that hangs blocks nothing else."""
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()  # the call continues if its caller is cancelled

    def call() -> None:
        try:
            future.set_result(function())
        except Exception as error:  # noqa: BLE001 - `await` raises it for the caller
            future.set_exception(error)

    threading.Thread(target=call, name=name, daemon=True).start()
    return await asyncio.wrap_future(future)
