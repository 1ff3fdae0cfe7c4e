"""The stage lock: of all clients that move one stage, one does so at a time, in a known order.

MLflow has no lock and no compare-and-swap, but a parameter of a run that nobody can write twice.
The events on a stage form a chain: each appends itself by writing its own id into the last one, and
waits until every event before it is closed. An event without a heartbeat has expired, and whoever
waits for it closes it.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator

from mlflow import MlflowClient
from mlflow.entities import Metric, Run
from mlflow.exceptions import MlflowException

from registry_tools.errors import PromotionError, RegistryToolsError
from registry_tools.mlflow_store import heartbeat
from registry_tools.mlflow_store.client import translate_errors, upsert
from registry_tools.promotion import history
from registry_tools.promotion.event import DONE, SEQUENCE, SUPERSEDED, Event, event_from_run

_log = logging.getLogger(__name__)

_POLL_SECONDS = 0.05
_PREVIOUS = "previous_event"
_NEXT = "next"


@contextlib.contextmanager
def stage_lock(
    client: MlflowClient, model: str, event: Event, close_expired: Callable[[Event], object]
) -> Iterator[None]:
    """Acquire the lock of an event's stage once all earlier events are closed.

    Parameters
    ----------
    client, model, event
        The event that acquires the lock.
    close_expired
        Closes an event whose process was killed, with the outcome that it had.

    Raises
    ------
    PromotionError
        If this event has itself expired and was closed, because its process was suspended.
    """
    with translate_errors(client.tracking_uri):
        for run in _append_to_chain(client, model, event):
            _wait_until_closed(client, client.get_run(run.info.run_id), close_expired)
        if not event_from_run(client.get_run(event.run_id)).is_open:
            raise PromotionError(
                f"this {event.action} expired: its process was suspended for too long, and another "
                "client closed it; nothing was moved: repeat it"
            )
    yield


def _append_to_chain(client: MlflowClient, model: str, event: Event) -> list[Run]:
    """Put an event at the end of its stage's chain; return those before it that may be open."""
    last = history.chain_end(client, model, event.stage)
    if last is not None:
        run = client.get_run(last)
        key, number = _NEXT, int(run.data.metrics.get(SEQUENCE, 0))
    else:
        run, key, number = history.root(client, model), f"{_NEXT}.{event.stage}", 0
    passed = [run]
    while not _try_append(client, run, key, event):
        follower = client.get_run(client.get_run(run.info.run_id).data.params[key])
        if _PREVIOUS not in follower.data.tags:  # its process has not written it yet
            _write_previous(client, follower.info.run_id, run.info.run_id)
        run, key, number = follower, _NEXT, number + 1
        passed.append(run)
    now = time.time_ns() // 1_000_000
    client.log_batch(event.run_id, metrics=[Metric(SEQUENCE, number + 1, now, 0)])
    _write_previous(client, event.run_id, run.info.run_id)
    history.set_chain_end(client, event)
    return passed


def _write_previous(client: MlflowClient, run_id: str, previous: str) -> None:
    """Write which event is before another; its own process and any later one may do so."""
    upsert(lambda: client.set_tag(run_id, _PREVIOUS, previous))


def _try_append(client: MlflowClient, run: Run, key: str, event: Event) -> bool:
    """Write an event's id as the one after another; False if there is one after it already."""
    try:
        client.log_param(run.info.run_id, key, event.run_id)
    except MlflowException as error:
        stored = client.get_run(run.info.run_id)
        if stored.info.lifecycle_stage != "active":
            raise RegistryToolsError(
                f"the history is incomplete: run {run.info.run_id} was deleted in MLflow; restore "
                f"it with: mlflow runs restore --run-id {run.info.run_id}"
            ) from error
        if key not in stored.data.params:
            raise
        return stored.data.params[key] == event.run_id
    return True


def _wait_until_closed(client: MlflowClient, run: Run, close_expired: Callable[[Event], object]) -> None:
    """Wait for an event and, where it ended without the lock, for those before it."""
    monitor, warned = heartbeat.HeartbeatMonitor(), False
    while run.info.status == "RUNNING" and not monitor.has_expired:
        monitor.observe(run)
        if monitor.seconds_since_beat > 2 * heartbeat.HEARTBEAT_SECONDS and not warned:
            warned = True
            _log.warning("waiting for an event without a heartbeat, run %s", run.info.run_id)
        time.sleep(_POLL_SECONDS)
        run = client.get_run(run.info.run_id)
    had_lock = run.data.tags.get("outcome") in {DONE, SUPERSEDED}
    if not had_lock and _PREVIOUS in run.data.tags:
        _wait_until_closed(client, client.get_run(run.data.tags[_PREVIOUS]), close_expired)
    if run.info.status == "RUNNING":
        close_expired(event_from_run(run))
