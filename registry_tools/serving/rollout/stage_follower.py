"""Follow a stage: poll the registry and roll out the version that it names."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from registry_tools.errors import RegistryToolsError, RegistryUnavailable, VerificationError
from registry_tools.inference.artifact_fetcher import ArtifactFetcher
from registry_tools.inference.model_artifact import Identity, ModelArtifact
from registry_tools.mlflow_store.tags import DRIFT_AT_TAG, DRIFT_TAG
from registry_tools.refs import parse_ref
from registry_tools.serving.settings import Settings
from registry_tools.serving.threads import run_in_thread

if TYPE_CHECKING:
    from registry_tools.mlflow_store.registry import VersionInfo

_log = logging.getLogger(__name__)

_MAX_BACKOFF = 300.0  # seconds between tries of a version that cannot take over
_LOAD_SECONDS = 120.0


class RolloutTarget(Protocol):
    """A process that serves a version: this one, or a worker."""

    async def prepare(self, artifact: ModelArtifact) -> None:
        """Load and check a version beside the served one; raises VerificationError."""

    async def swap(self, artifact: ModelArtifact) -> None:
        """Serve the prepared version from here on."""

    async def drop(self, artifact: ModelArtifact) -> None:
        """Forget a prepared version."""

    def report_status(self, state: dict[str, Any]) -> None:
        """Receive the state of the rollout."""


class RolloutObserver(Protocol):
    """Counts the results of rollouts."""

    def rolled_out(self, name: str, stage: str | None, version: int) -> None:
        """Count a version that took over."""

    def rollout_failed(self, reason: str) -> None:
        """Count a version that could not: for its `verification`, the `registry`, or an `error`."""

    def report_drift(self, name: str, verdict: str, at: str) -> None:
        """Record the last verdict of a monitor on the version in the stage, and its time."""


Target = TypeVar("Target", bound=RolloutTarget)


def _identity(version: VersionInfo) -> Identity:
    return version.version, version.run_id, version.digest


def artifact_fetcher_for(settings: Settings) -> ArtifactFetcher:
    """Return a fetcher for the reference that the server follows."""
    cache = Path(settings.cache) if settings.cache else None
    return ArtifactFetcher(parse_ref(settings.ref), settings.policy, settings.tracking_uri, cache)


class StageFollower:
    """Follows one reference for a number of targets."""

    def __init__(
        self,
        fetcher: ArtifactFetcher,
        targets: Callable[[], Sequence[RolloutTarget]],
        observer: RolloutObserver,
        poll: float,
    ) -> None:
        self.current: ModelArtifact | None = None
        self._fetcher = fetcher
        self._targets = targets
        self._observer = observer
        self._poll = poll
        self._lock = asyncio.Lock()
        self._wake = asyncio.Event()
        self._failed: tuple[Identity, int, float] | None = None  # tries, and when the next is due
        self.state: dict[str, Any] = {
            "ref": str(fetcher.ref),
            "last_poll": None,
            "last_registry_response": None,
            "last_error": None,
            "candidate": None,
        }

    async def start(self) -> ModelArtifact:
        """Find, fetch and load the first version.

        Raises
        ------
        RegistryToolsError
            If there is none that can be served.
        """
        try:
            version = await self._resolve()
            artifact = await self._fetch_artifact(version)
        except RegistryUnavailable as error:
            cached = await run_in_thread(self._fetcher.read_cached, "cache")
            if cached is None:
                raise
            artifact = cached
            _log.warning("%s; serving %s from the cache", error, artifact)
        await self._roll_out(artifact)
        return artifact

    async def follow(self) -> None:
        """Poll forever; a reference by number never changes, and is not polled."""
        while self.current is None or self.current.stage is not None:
            delay = self._poll * random.uniform(0.8, 1.0)
            try:
                await asyncio.wait_for(self._wake.wait(), delay)
                self._wake.clear()
                await self.refresh()
            except asyncio.TimeoutError:
                await self.refresh(force=False)

    def wake(self) -> None:
        """Poll at once."""
        self._wake.set()

    async def refresh(self, force: bool = True) -> None:
        """Poll, and roll out another version if the reference means another.

        `force` also retries a version that failed, without waiting for its backoff.
        """
        async with self._lock:
            try:
                version = await self._resolve()
                if self._is_due(version, force):
                    await self._try_roll_out(version)
                if self.state["last_error"] is not None:
                    _log.info("the registry responds again")
                self.state["last_error"] = None
                if self._is_current(version):
                    self._failed = self.state["candidate"] = None
            except RegistryToolsError as error:
                self._report(error)
            except Exception as error:  # noqa: BLE001 - there has to be a next poll, whatever it is
                _log.exception("polling %s failed", self.state["ref"])
                self._report(error)
            self.report_status()

    def _report(self, error: Exception) -> None:
        text = public_message(error)
        if self.state["last_error"] != text:
            _log.warning("%s; still serving %s", error, self.current or "nothing")
        self.state["last_error"] = text

    def report_shadow(self, report: dict[str, Any]) -> None:
        """Add the report of the shadow to the state of every target."""
        self.state["shadow"] = report
        self.report_status()

    async def add_target(self, target: Target, add: Callable[[Target], None]) -> None:
        """Let a new target serve the current version, and then add it to the others.

        Raises
        ------
        VerificationError, TimeoutError
            If it cannot.
        """
        async with self._lock:
            assert self.current is not None
            await asyncio.wait_for(target.prepare(self.current), _LOAD_SECONDS)
            await target.swap(self.current)
            target.report_status(dict(self.state))
            add(target)

    async def _resolve(self) -> VersionInfo:
        self.state["last_poll"] = now()
        version = await run_in_thread(self._fetcher.resolve, "resolve")
        self.state["last_registry_response"] = now()
        verdict, at = (version.tags.get(tag, "") for tag in (DRIFT_TAG, DRIFT_AT_TAG))
        self._observer.report_drift(version.name, verdict, at)
        return version

    async def _fetch_artifact(self, version: VersionInfo) -> ModelArtifact:
        return await run_in_thread(lambda: self._fetcher.fetch(version), "fetch")

    def _is_current(self, version: VersionInfo) -> bool:
        # A number alone may mean another version: of a model that was deleted and made anew.
        return self.current is not None and self.current.identity == _identity(version)

    def _is_due(self, version: VersionInfo, force: bool) -> bool:
        if self._is_current(version):
            return False
        if self._failed is None or self._failed[0] != _identity(version) or force:
            return True
        return time.monotonic() >= self._failed[2]

    async def _try_roll_out(self, version: VersionInfo) -> None:
        try:
            await self._roll_out(await self._fetch_artifact(version))
        except Exception as error:
            failed = self._failed
            again = failed is not None and failed[0] == _identity(version)
            tries = failed[1] + 1 if failed is not None and again else 1
            delay = min(self._poll * 2 ** min(tries, 16), _MAX_BACKOFF)
            self._failed = (_identity(version), tries, time.monotonic() + delay)
            self.state["candidate"] = {
                "version": version.version,
                "error": public_message(error),
                "tries": tries,
                "next_try_in_seconds": round(delay, 1),
            }
            _log.warning("version %d does not take over: %s", version.version, error)
            if isinstance(error, VerificationError):
                self._observer.rollout_failed("verification")
                return
            known = isinstance(error, RegistryToolsError)
            self._observer.rollout_failed("registry" if known else "error")
            raise

    async def _roll_out(self, artifact: ModelArtifact) -> None:
        """Let every target prepare a version and, once all have, swap to it."""
        targets = self._targets()
        try:
            await asyncio.wait_for(
                asyncio.gather(*(target.prepare(artifact) for target in targets)), _LOAD_SECONDS
            )
        except (asyncio.TimeoutError, RegistryToolsError) as error:
            for target in targets:
                await target.drop(artifact)
            if isinstance(error, RegistryToolsError):
                raise
            raise VerificationError(f"{artifact} does not load within {_LOAD_SECONDS:g} s") from error
        before, self.current = self.current, artifact
        await asyncio.gather(*(target.swap(artifact) for target in targets))
        self._observer.rolled_out(artifact.name, artifact.stage, artifact.version)
        self.state["candidate"] = self._failed = None
        self.report_status()
        if before is not None:
            _log.info("%s took over from version %d", artifact, before.version)
        try:
            await run_in_thread(lambda: self._fetcher.write_cache(artifact), "cache")
            self.state.pop("cache_error", None)
        except OSError as error:
            self.state["cache_error"] = f"not kept for the next start: {error.strerror or error}"
            _log.warning("%s is %s", artifact, self.state["cache_error"])

    def report_status(self) -> None:
        """Send the state of the rollout to every target."""
        for target in self._targets():
            target.report_status(dict(self.state))


def now() -> str:
    """Return the time as `/model` shows it."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def public_message(error: BaseException) -> str:
    """Return an error as anybody may read it: of addresses, no more than the target."""
    text = str(error) if isinstance(error, RegistryToolsError) else _system_message(error)
    return re.sub(r"(\w+)://(?:[^/@\s]*@)?([^/\s]*)\S*", r"\1://\2", text)


def _system_message(error: BaseException) -> str:
    reason = (error.strerror or "") if isinstance(error, OSError) else ""
    return f"{type(error).__name__}: {reason or error}"
