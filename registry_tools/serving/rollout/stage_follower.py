"""Follow a reference: poll the registry, and roll out the version in the stage."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from registry_tools.errors import RegistryToolsError, RegistryUnavailable, VerificationError
from registry_tools.inference.artifact_fetcher import ArtifactFetcher
from registry_tools.inference.model_artifact import Identity, ModelArtifact
from registry_tools.inference.predictor import Predictor
from registry_tools.mlflow_store.tags import DRIFT_AT_TAG, DRIFT_TAG
from registry_tools.refs import parse_ref
from registry_tools.serving.control import Control
from registry_tools.serving.errors import hide_paths, public_message
from registry_tools.serving.rollout.trials import load_after_trial
from registry_tools.serving.settings import Settings
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
        settings: Settings,
        control: Control,
        swap: Callable[[Predictor], None],
        observer: RolloutObserver,
    ) -> None:
        """Create a follower without a version.

        Parameters
        ----------
        settings
            The options of the server, with the reference to follow.
        control
            The connection to the parent, which tries each version before it is loaded.
        swap
            Called with a loaded version, which serves all requests from then on.
        observer
            Counts the results of rollouts.
        """
        ref = parse_ref(settings.ref)
        # A restarted process needs the served version, even if the registry is unavailable.
        cache = Path(settings.cache) if settings.cache else control.folder.path / "cache"
        self.current: ModelArtifact | None = None
        self._settings = settings
        self._control = control
        self._fetcher = ArtifactFetcher(
            ref, settings.trust_policy, settings.tracking_uri, cache, settings.policy
        )
        self._swap = swap
        self._observer = observer
        self._lock = asyncio.Lock()
        self._wake = asyncio.Event()
        self._forced = False  # whether the next poll retries a failed version
        self._failed: Identity | None = None  # the last version that was not rolled out
        self._tries = 0
        self._next_try = 0.0
        self.state: dict[str, Any] = {
            "ref": str(ref),
            "last_poll": None,
            "last_registry_response": None,
            "last_error": None,
            "candidate": None,
        }

    def close(self) -> None:
        """Delete the fetched files."""
        self._fetcher.close()

    async def start(self) -> ModelArtifact:
        """Find, fetch and load the first version, or the cached one if that fails temporarily.

        If a process of this server has served before, the cached version is good, even if the stage has
        moved to a version that cannot be loaded.

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
            return await self._fetch_and_roll_out(version)
        except RegistryToolsError as error:
            lacks_files = version is not None and not isinstance(error, VerificationError)
            may_use_cache = self._control.server_has_served or lacks_files
            if not may_use_cache and not isinstance(error, RegistryUnavailable):
                raise
            cached = await run_in_thread(self._fetcher.read_cached, "cache")
            if cached is None:
                raise
            _log.warning("%s; serving %s from the cache", error, cached)
            self.state["last_error"] = public_message(error)
            return await self._roll_out(cached)

    async def follow(self) -> None:
        """Poll the registry until cancelled; return at once for a version number, which never changes."""
        while self.current is None or self.current.stage is not None:
            delay = self._settings.poll * random.uniform(0.8, 1.0)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wake.wait(), delay)
            self._wake.clear()
            forced, self._forced = self._forced, False
            await self.refresh(forced)

    def wake(self, force: bool = False) -> None:
        """Make `follow` poll at once, or once more after a poll in progress, however often it is called.

        With `force`, that poll also retries a version that failed, without waiting for its backoff.
        """
        self._forced |= force
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
            except Exception as error:  # noqa: BLE001 - no error may end the polling
                if not isinstance(error, RegistryToolsError):
                    _log.exception("polling %s failed", self.state["ref"])
                text = public_message(error)
                if self.state["last_error"] != text:
                    _log.warning("%s; still serving %s", error, self.current or "nothing")
                self.state["last_error"] = text

    async def _resolve(self) -> VersionInfo:
        self.state["last_poll"] = _now()
        version = await run_in_thread(self._fetcher.resolve, "resolve")
        self.state["last_registry_response"] = _now()
        if self._fetcher.ref.stage is not None:
            self._observer.registry_responded(time.time())
        verdict, at = (version.tags.get(tag, "") for tag in (DRIFT_TAG, DRIFT_AT_TAG))
        self._observer.report_drift(version.name, verdict, at)
        return version

    def _is_current(self, version: VersionInfo) -> bool:
        # Compare more than the number: a model may have been deleted and created again.
        return self.current is not None and self.current.identity == _identity(version)

    def _is_due(self, version: VersionInfo, force: bool) -> bool:
        if self._is_current(version):
            return False
        return force or self._failed != _identity(version) or time.monotonic() >= self._next_try

    async def _try_roll_out(self, version: VersionInfo) -> None:
        try:
            await self._fetch_and_roll_out(version)
        except Exception as error:
            self._tries = self._tries + 1 if self._failed == _identity(version) else 1
            self._failed = _identity(version)
            delay = min(self._settings.poll * 2 ** min(self._tries, 16), _MAX_BACKOFF)
            self._next_try = time.monotonic() + delay
            self.state["candidate"] = {
                "version": version.version,
                "error": public_message(error),
                "tries": self._tries,
                "next_try_in_seconds": round(delay, 1),
            }
            _log.warning("version %d was not rolled out: %s", version.version, error)
            if isinstance(error, VerificationError):
                self._observer.rollout_failed("verification")
                return
            known = isinstance(error, RegistryToolsError)
            self._observer.rollout_failed("registry" if known else "error")
            raise

    async def _fetch_and_roll_out(self, version: VersionInfo) -> ModelArtifact:
        return await self._roll_out(await run_in_thread(lambda: self._fetcher.fetch(version), "fetch"))

    async def _roll_out(self, artifact: ModelArtifact) -> ModelArtifact:
        """Load a version while the current one serves, then swap to it."""
        load = partial(load_after_trial, artifact, self._settings, self._control)
        longest = self._settings.load_seconds
        try:
            predictor = await asyncio.wait_for(run_in_thread(load, "load"), longest)
        except asyncio.TimeoutError as error:
            raise VerificationError(f"{artifact} does not load within {longest:g} s") from error
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
        return artifact


def _now() -> str:
    """Return the current time in the format of `/model`."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
