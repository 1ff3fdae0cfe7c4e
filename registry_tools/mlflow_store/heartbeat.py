"""Heartbeats: which open runs are in progress, and which a killed process left open."""

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
# No heartbeat for so long, on the watching client's own clock: the process was killed.
EXPIRY_SECONDS = 10.0
_HEARTBEAT = "heartbeat"


@contextlib.contextmanager
def keep_alive(client: MlflowClient, run_id: str) -> Iterator[None]:
    """Write a heartbeat every second while the body works."""
    over = threading.Event()

    def beat() -> None:
        count = 0
        while not over.wait(HEARTBEAT_SECONDS):
            count += 1
            # The work itself reports an unavailable registry, which it needs too.
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
    """Time since a run's last heartbeat, on this client's clock: machines are not compared."""

    def __init__(self) -> None:
        self._last_beat: str | None = None
        self._since: float | None = None

    def observe(self, run: Run) -> bool:
        """Read the heartbeat; return whether there was one since the first call."""
        beat = run.data.tags.get(_HEARTBEAT, "")
        first = self._since is None
        changed = beat != self._last_beat
        if first or changed:
            self._last_beat, self._since = beat, time.monotonic()
        return changed and not first

    @property
    def seconds_since_beat(self) -> float:
        """Seconds since the last heartbeat, or since the first call of `observe`."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    @property
    def has_expired(self) -> bool:
        """Whether there was none for so long that the process was killed."""
        return self.seconds_since_beat > EXPIRY_SECONDS


def expired(client: MlflowClient, run_ids: Sequence[str]) -> list[str]:
    """Return those of some open runs whose process was killed; takes as long as that takes."""
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
