"""Heartbeats, which separate open runs in progress from runs that a killed process left open."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence

from mlflow import MlflowClient
from mlflow.entities import Run

from registry_tools.errors import RegistryToolsError
from registry_tools.mlflow_store.client import translate_errors

HEARTBEAT_SECONDS = 1.0
# After this time without a heartbeat, on the clock of the watching client, the process counts as killed.
EXPIRY_SECONDS = 10.0
_HEARTBEAT = "heartbeat"


@contextlib.contextmanager
def keep_alive(client: MlflowClient, run_id: str) -> Iterator[None]:
    """Write a heartbeat to a run every second while the body works."""
    over = threading.Event()

    def beat() -> None:
        count = 0
        while not over.wait(HEARTBEAT_SECONDS):
            count += 1
            # The body needs the registry too, and reports that it is unavailable.
            with contextlib.suppress(RegistryToolsError), translate_errors(client.tracking_uri):
                client.set_tag(run_id, _HEARTBEAT, str(count), synchronous=True)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=HEARTBEAT_SECONDS)


class HeartbeatMonitor:
    """Measures the time since a run's last heartbeat on this client's clock only.

    The clocks of two machines may differ.
    """

    def __init__(self) -> None:
        self._last_beat: str | None = None
        self._since: float | None = None

    def observe(self, run: Run) -> bool:
        """Read the heartbeat of a run, and return whether it changed since the last call."""
        beat = run.data.tags.get(_HEARTBEAT, "")
        first = self._since is None
        changed = beat != self._last_beat
        if first or changed:
            self._last_beat, self._since = beat, time.monotonic()
        return changed and not first

    @property
    def seconds_since_beat(self) -> float:
        """Seconds since the last heartbeat, or since the first call of `observe` if there was none."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    @property
    def has_expired(self) -> bool:
        """Whether the last heartbeat is so old that the process counts as killed."""
        return self.seconds_since_beat > EXPIRY_SECONDS


def expired(client: MlflowClient, run_ids: Sequence[str]) -> list[str]:
    """Return the runs whose process was killed; wait until each run sends a heartbeat, ends or expires."""
    watched = {run_id: HeartbeatMonitor() for run_id in run_ids}
    found = []
    while watched:
        for run_id, monitor in list(watched.items()):
            with translate_errors(client.tracking_uri):
                run = client.get_run(run_id)
            if monitor.observe(run) or run.info.status != "RUNNING":
                del watched[run_id]
            elif monitor.has_expired:
                del watched[run_id]
                found.append(run_id)
        if watched:
            time.sleep(0.2)
    return [run_id for run_id in run_ids if run_id in found]
