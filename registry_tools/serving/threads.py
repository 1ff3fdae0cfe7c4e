"""Run blocking calls in threads that do not delay the end of the process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


async def run_in_thread(function: Callable[[], T], name: str) -> T:
    """Call a function in a new thread, so that a call that hangs blocks no other call."""
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()  # the call goes on if its caller is cancelled

    def call() -> None:
        try:
            future.set_result(function())
        except Exception as error:  # noqa: BLE001 - raised where the future is awaited
            future.set_exception(error)

    threading.Thread(target=call, name=name, daemon=True).start()
    return await asyncio.wrap_future(future)
