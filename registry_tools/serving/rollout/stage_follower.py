"""Follow a reference: poll the registry, and roll out the version in the stage."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Protocol

from registry_tools.errors import RegistryToolsError, RegistryUnavailable, VerificationError
from registry_tools.inference.artifact_fetcher import ArtifactFetcher
from registry_tools.inference.model_artifact import Identity, ModelArtifact
from registry_tools.inference.predictor import Predictor
from registry_tools.mlflow_store.tags import DRIFT_AT_TAG, DRIFT_TAG
from registry_tools.serving.errors import hide_paths, public_message
from registry_tools.serving.threads import run_in_thread

if TYPE_CHECKING:
    from registry_tools.mlflow_store.registry import VersionInfo

_log = logging.getLogger(__name__)

_MAX_BACKOFF = 300.0  # seconds between two attempts to roll out a version


class RolloutObserver(Protocol):
    """Counts the results of rollouts."""

    def registry_responded(self, at: float) -> None:
        """Record when the registry last responded, in seconds since 1970."""

    def rolled_out(self, name: str, stage: str | None, version: int) -> None:
        """Count a version that was rolled out."""

    def rollout_failed(self, reason: str) -> None:
        """Count a failed rollout; the reason is `verification`, `registry` or `error`."""

    def report_drift(self, name: str, verdict: str, at: str) -> None:
        """Record the last drift verdict of the monitoring for the version in the stage, and its time."""


def _identity(version: VersionInfo) -> Identity:
    return version.version, version.run_id, version.digest


class StageFollower:
    """Follows one reference, and rolls out its versions."""

    def __init__(
        self,
        fetcher: ArtifactFetcher,
        load: Callable[[ModelArtifact], Predictor],
        swap: Callable[[Predictor], None],
        observer: RolloutObserver,
        poll: float,
        load_seconds: float,
    ) -> None:
        """Create a follower without a version.

        Parameters
        ----------
        fetcher
            Resolves the reference, and fetches its versions.
        load
            Called in a thread to check and load a version; raises VerificationError.
        swap
            Called with a loaded version, which serves all requests from then on.
        observer
            Counts the results of rollouts.
        poll, load_seconds
            The time between two polls, and the longest time to load a version, in seconds.
        """
        self.current: ModelArtifact | None = None
        self._fetcher = fetcher
        self._load = load
        self._swap = swap
        self._observer = observer
        self._poll = poll
        self._load_seconds = load_seconds
        self._lock = asyncio.Lock()
        self._wake = asyncio.Event()
        self._failed: tuple[Identity, int, float] | None = None  # the version, attempts, next time
        self.state: dict[str, Any] = {
            "ref": str(fetcher.ref),
            "last_poll": None,
            "last_registry_response": None,
            "last_error": None,
            "candidate": None,
        }

    async def start(self, server_has_served: bool = False) -> ModelArtifact:
        """Find, fetch and load the first version, or the cached one if that fails temporarily.

        Parameters
        ----------
        server_has_served
            Whether a process of this server has served before. Then the cached version is good, even if
            the stage has moved to a version that cannot be loaded.

        Raises
        ------
        RegistryToolsError
            If no version can be served.
        """
        if self._fetcher.ref.stage is not None:
            self._observer.registry_responded(time.time())  # the age counts from the start
        version = None
        try:
            version = await self._resolve()
            artifact = await self._fetch_artifact(version)
            await self._roll_out(artifact)
        except RegistryToolsError as error:
            lacks_files = version is not None and not isinstance(error, VerificationError)
            if not (server_has_served or lacks_files or isinstance(error, RegistryUnavailable)):
                raise
            artifact = await self._start_from_cache(error)
        return artifact

    async def _start_from_cache(self, reason: RegistryToolsError) -> ModelArtifact:
        cached = await run_in_thread(self._fetcher.read_cached, "cache")
        if cached is None:
            raise reason
        _log.warning("%s; serving %s from the cache", reason, cached)
        self.state["last_error"] = public_message(reason)
        await self._roll_out(cached)
        return cached

    async def follow(self) -> None:
        """Poll the registry until cancelled; return at once for a version number, which never changes."""
        while self.current is None or self.current.stage is not None:
            delay = self._poll * random.uniform(0.8, 1.0)
            try:
                await asyncio.wait_for(self._wake.wait(), delay)
                self._wake.clear()
                await self.refresh()
            except asyncio.TimeoutError:
                await self.refresh(force=False)

    def wake(self) -> None:
        """Make `follow` poll at once."""
        self._wake.set()

    async def refresh(self, force: bool = True) -> None:
        """Poll the registry, and roll out the version if it is a new one.

        With `force`, also retry a version that failed, without waiting for its backoff.
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
            except Exception as error:  # noqa: BLE001 - no error may end the polling
                _log.exception("polling %s failed", self.state["ref"])
                self._report(error)

    def _report(self, error: Exception) -> None:
        text = public_message(error)
        if self.state["last_error"] != text:
            _log.warning("%s; still serving %s", error, self.current or "nothing")
        self.state["last_error"] = text

    async def _resolve(self) -> VersionInfo:
        self.state["last_poll"] = now()
        version = await run_in_thread(self._fetcher.resolve, "resolve")
        self.state["last_registry_response"] = now()
        if self._fetcher.ref.stage is not None:
            self._observer.registry_responded(time.time())
        verdict, at = (version.tags.get(tag, "") for tag in (DRIFT_TAG, DRIFT_AT_TAG))
        self._observer.report_drift(version.name, verdict, at)
        return version

    async def _fetch_artifact(self, version: VersionInfo) -> ModelArtifact:
        return await run_in_thread(lambda: self._fetcher.fetch(version), "fetch")

    def _is_current(self, version: VersionInfo) -> bool:
        # Compare more than the number: a model may have been deleted and created again.
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
            _log.warning("version %d was not rolled out: %s", version.version, error)
            if isinstance(error, VerificationError):
                self._observer.rollout_failed("verification")
                return
            known = isinstance(error, RegistryToolsError)
            self._observer.rollout_failed("registry" if known else "error")
            raise

    async def _roll_out(self, artifact: ModelArtifact) -> None:
        """Load a version while the current one serves, then swap to it."""
        loading = run_in_thread(lambda: self._load(artifact), "load")
        try:
            predictor = await asyncio.wait_for(loading, self._load_seconds)
        except asyncio.TimeoutError as error:
            raise VerificationError(f"{artifact} does not load within {self._load_seconds:g} s") from error
        before, self.current = self.current, artifact
        self._swap(predictor)
        self._observer.rolled_out(artifact.name, artifact.stage, artifact.version)
        self.state["candidate"] = self._failed = None
        if before is not None:
            _log.info("%s replaced version %d", artifact, before.version)
        try:
            await run_in_thread(lambda: self._fetcher.write_cache(artifact), "cache")
            self.state.pop("cache_error", None)
        except OSError as error:
            reason = f"not kept for the next start: {error.strerror or error}"
            self.state["cache_error"] = hide_paths(reason)
            _log.warning("%s is %s", artifact, reason)


def now() -> str:
    """Return the current time in the format of `/model`."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
