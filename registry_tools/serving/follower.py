"""The loop that keeps what is served where the stage is."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import random
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import Any, Protocol, TypeVar

from registry_tools.errors import RegistryToolsError, RegistryUnavailable, VerificationError
from registry_tools.serving.source import Source
from registry_tools.serving.sources import Sources

_log = logging.getLogger(__name__)

T = TypeVar("T")

_LONGEST_PAUSE = 300.0  # seconds between tries of a version that cannot take over
_LOAD_SECONDS = 120.0


class Host(Protocol):
    """Where a version answers: this process, or a worker of its own."""

    async def prepare(self, source: Source) -> None:
        """Load a version beside the one that answers, and try it; raises VerificationError."""

    async def swap(self, source: Source) -> None:
        """Let the prepared version answer from here on."""

    async def drop(self, source: Source) -> None:
        """Forget a prepared version."""

    def tell(self, state: dict[str, Any]) -> None:
        """Hand on how the following goes."""


class Observer(Protocol):
    """Who counts what the following comes to."""

    def swapped(self, name: str, stage: str | None, version: int) -> None:
        """Count a version that took over."""

    def swap_failed(self) -> None:
        """Count a version that could not."""

    def registry_answered(self, at: float) -> None:
        """Take in when the registry last answered, in seconds since 1970."""


H = TypeVar("H", bound=Host)


class Follower:
    """Follows one reference for a number of hosts."""

    def __init__(
        self,
        sources: Sources,
        hosts: Callable[[], Sequence[Host]],
        metrics: Observer,
        poll: float,
    ) -> None:
        self.current: Source | None = None
        self._sources = sources
        self._hosts = hosts
        self._metrics = metrics
        self._poll = poll
        self._thread = _Thread()
        self._lock = asyncio.Lock()
        self._wake = asyncio.Event()
        self._failed: tuple[int, int, float] | None = None  # version, tries, when the next is due
        self.state: dict[str, Any] = {
            "ref": str(sources.ref),
            "last_look": None,
            "last_answer": None,
            "last_error": None,
            "candidate": None,
        }

    async def start(self) -> Source:
        """Find, fetch and load the first version.

        Raises
        ------
        RegistryToolsError
            If there is none that can be served.
        """
        try:
            number = await self._look()
            source = await self._thread(lambda: self._sources.fetch(number))
        except RegistryUnavailable as error:
            cached = await self._thread(self._sources.cached)
            if cached is None:
                raise
            source = cached
            _log.warning("%s; serving %s from the cache", error, source)
        await self._take(source)
        return source

    async def follow(self) -> None:
        """Look again and again, forever; a version by its number stays what it is."""
        while self.current is None or self.current.stage is not None:
            pause = self._poll * random.uniform(0.8, 1.0)
            try:
                await asyncio.wait_for(self._wake.wait(), pause)
                self._wake.clear()
                await self.refresh()
            except asyncio.TimeoutError:
                await self.refresh(at_once=False)

    def wake(self) -> None:
        """Look at once."""
        self._wake.set()

    async def refresh(self, at_once: bool = True) -> None:
        """Look, and let another version take over if the reference means another.

        `at_once` also tries a version again that could not take over.
        """
        async with self._lock:
            try:
                number = await self._look()
                if self._is_due(number, at_once):
                    await self._change(number)
                self.state["last_error"] = None
                if self.current is not None and number == self.current.version:
                    self._failed = self.state["candidate"] = None
            except RegistryToolsError as error:
                self._report(str(error))
            except Exception as error:  # noqa: BLE001 - there has to be a next look, whatever it is
                _log.exception("looking at %s failed", self.state["ref"])
                self._report(f"{type(error).__name__}: {error}")
            self.tell()

    def _report(self, error: str) -> None:
        if self.state["last_error"] != error:
            _log.warning("%s; still serving %s", error, self.current)
        self.state["last_error"] = error

    def tell_of_shadow(self, report: dict[str, Any]) -> None:
        """Take in how the shadow does, and let every host know."""
        self.state["shadow"] = report
        self.tell()

    async def admit(self, host: H, add: Callable[[H], None]) -> None:
        """Let a new host answer with what the others answer with, and then add it to them.

        Raises
        ------
        VerificationError
            If it cannot.
        """
        async with self._lock:
            assert self.current is not None
            await host.prepare(self.current)
            await host.swap(self.current)
            host.tell(dict(self.state))
            add(host)

    async def _look(self) -> int:
        self.state["last_look"] = _now()
        number = await self._thread(self._sources.look)
        self.state["last_answer"] = _now()
        self._metrics.registry_answered(time.time())
        return number

    def _is_due(self, number: int, at_once: bool) -> bool:
        if self.current is not None and number == self.current.version:
            return False
        if self._failed is None or self._failed[0] != number or at_once:
            return True
        return time.monotonic() >= self._failed[2]

    async def _change(self, number: int) -> None:
        try:
            source = await self._thread(lambda: self._sources.fetch(number))
            await self._take(source)
        except (RegistryToolsError, OSError) as error:
            tries = self._failed[1] + 1 if self._failed and self._failed[0] == number else 1
            pause = min(self._poll * 2**tries, _LONGEST_PAUSE)
            self._failed = (number, tries, time.monotonic() + pause)
            self.state["candidate"] = {
                "version": number,
                "error": str(error),
                "tries": tries,
                "next_try_in_seconds": round(pause, 1),
            }
            self._metrics.swap_failed()
            _log.warning("version %d does not take over: %s", number, error)
            if not isinstance(error, (VerificationError, OSError)):
                raise

    async def _take(self, source: Source) -> None:
        """Let every host prepare a version and, once all have, swap to it."""
        hosts = self._hosts()
        try:
            await asyncio.wait_for(
                asyncio.gather(*(host.prepare(source) for host in hosts)), _LOAD_SECONDS
            )
        except (asyncio.TimeoutError, RegistryToolsError) as error:
            for host in hosts:
                await host.drop(source)
            if isinstance(error, RegistryToolsError):
                raise
            raise VerificationError(f"{source} does not load within {_LOAD_SECONDS:g} s") from error
        before, self.current = self.current, source
        await asyncio.gather(*(host.swap(source) for host in hosts))
        self._metrics.swapped(source.name, source.stage, source.version)
        self.state["candidate"] = self._failed = None
        self.tell()
        if before is not None:
            _log.info("%s took over from version %d", source, before.version)
        try:
            await self._thread(lambda: self._sources.keep(source))
            self.state.pop("cache_error", None)
        except OSError as error:
            self.state["cache_error"] = f"not kept for the next start: {error.strerror or error}"
            _log.warning("%s is %s", source, self.state["cache_error"])

    def tell(self) -> None:
        """Let every host know how it goes."""
        for host in self._hosts():
            host.tell(dict(self.state))


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


class _Thread:
    """One thread for all that blocks, which nobody waits for when the process ends."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="registry", daemon=True).start()

    def _run(self) -> None:
        while True:
            self._calls.get()()

    async def __call__(self, function: Callable[[], T]) -> T:
        """Call a function there."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def settle(result: T | None, error: BaseException | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]

        def call() -> None:
            result, error = None, None
            try:
                result = function()
            except Exception as raised:  # noqa: BLE001 - handed to whoever waits
                error = raised
            with contextlib.suppress(RuntimeError):  # the loop may have ended meanwhile
                loop.call_soon_threadsafe(settle, result, error)

        self._calls.put(call)
        return await future
