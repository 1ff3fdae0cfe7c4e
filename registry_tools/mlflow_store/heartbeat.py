"""Signs of life: which open runs are at work, and which were left open by a killed process."""

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
# No sign of life for so long, on the watching client's own clock: the process was killed.
EXPIRY_SECONDS = 10.0
_ALIVE = "alive"


@contextlib.contextmanager
def keep_alive(client: MlflowClient, run_id: str) -> Iterator[None]:
    """Give a sign of life every second while the body works."""
    over = threading.Event()

    def beat() -> None:
        count = 0
        while not over.wait(HEARTBEAT_SECONDS):
            count += 1
            # A registry that is away is told of by the work itself, which needs it too.
            with contextlib.suppress(RegistryToolsError), translate_errors(client.tracking_uri):
                client.set_tag(run_id, _ALIVE, str(count))

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=HEARTBEAT_SECONDS)


class HeartbeatMonitor:
    """What one client has seen of a run: clocks of different machines are not compared."""

    def __init__(self) -> None:
        self._seen: str | None = None
        self._since: float | None = None

    def sees_beat(self, run: Run) -> bool:
        """Take a look; return whether there was a sign of life since the first one."""
        beat = run.data.tags.get(_ALIVE, "")
        first = self._since is None
        changed = beat != self._seen
        if first or changed:
            self._seen, self._since = beat, time.monotonic()
        return changed and not first

    @property
    def seconds(self) -> float:
        """Since the last sign of life, or the first look."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    @property
    def has_expired(self) -> bool:
        """Whether there was none for so long that the process was killed."""
        return self.seconds > EXPIRY_SECONDS


def expired(client: MlflowClient, run_ids: Sequence[str]) -> list[str]:
    """Return those of some open runs whose process was killed; takes as long as that takes."""
    watched = {run_id: HeartbeatMonitor() for run_id in run_ids}
    found = []
    while watched:
        for run_id, watch in list(watched.items()):
            with translate_errors(client.tracking_uri):
                run = client.get_run(run_id)
            if watch.sees_beat(run) or run.info.status != "RUNNING":
                del watched[run_id]
            elif watch.has_expired:
                del watched[run_id]
                found.append(run_id)
        if watched:
            time.sleep(0.2)
    return [run_id for run_id in run_ids if run_id in found]
