"""Heartbeats, which separate open runs in progress from runs that a killed process left open."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence

from mlflow import MlflowClient

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


def expired(client: MlflowClient, run_ids: Sequence[str]) -> list[str]:
    """Return the runs whose process was killed; wait until each run sends a heartbeat, ends or expires.

    This function measures the time on the clock of this client only, because the clocks of two machines
    may differ.
    """
    first = {run_id: _beat(client, run_id) for run_id in run_ids}
    silent = [run_id for run_id, beat in first.items() if beat is not None]
    end = time.monotonic() + EXPIRY_SECONDS
    while silent and time.monotonic() < end:
        time.sleep(0.2)
        silent = [run_id for run_id in silent if _beat(client, run_id) == first[run_id]]
    return silent


def _beat(client: MlflowClient, run_id: str) -> str | None:
    """Return the last heartbeat of a run, empty before the first one; None if the run has ended."""
    with translate_errors(client.tracking_uri):
        run = client.get_run(run_id)
    return run.data.tags.get(_HEARTBEAT, "") if run.info.status == "RUNNING" else None
