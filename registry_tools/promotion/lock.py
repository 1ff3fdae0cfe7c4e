"""Turns: of all clients that move one stage, one does so at a time, in a known order.

MLflow has no lock and no compare-and-swap, but a parameter of a run that nobody can write twice.
The acts on a stage form a chain: each claims the one before it by writing its own id there, and
waits until every act before it is closed. An act that gives no sign of life was killed, and whoever
waits for it finishes it.
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
from registry_tools.promotion import events
from registry_tools.promotion.events import SEQUENCE, Event, event_from_run

_log = logging.getLogger(__name__)

_POLL_SECONDS = 0.05
_AFTER = "after"
_NEXT = "next"


@contextlib.contextmanager
def turn(
    client: MlflowClient, model: str, event: Event, finish: Callable[[Event], object]
) -> Iterator[None]:
    """Hold the stage of an act for it alone, from when every act before it is closed.

    Parameters
    ----------
    client, model, event
        The act that is to have its turn.
    finish
        Closes an act that was killed, as what it came to.

    Raises
    ------
    PromotionError
        If this act was itself taken for killed, because its process stood still.
    """
    with translate_errors(client.tracking_uri):
        for before in _claim(client, model, event):
            _wait_until_closed(client, client.get_run(before.info.run_id), finish)
        if not event_from_run(client.get_run(event.run_id)).is_open:
            raise PromotionError(
                f"this {event.action} stood still for so long that another took it for killed; "
                "nothing was moved: repeat it"
            )
    yield


def _claim(client: MlflowClient, model: str, event: Event) -> list[Run]:
    """Put an act at the end of its stage's chain; return those before it that may be open."""
    last = events.last_claim(client, model, event.stage)
    if last is not None:
        run = client.get_run(last)
        key, number = _NEXT, int(run.data.metrics.get(SEQUENCE, 0))
    else:
        run, key, number = events.root(client, model), events.first_claim(event.stage), 0
    passed = [run]
    while not _claimed(client, run, key, event):
        follower = client.get_run(client.get_run(run.info.run_id).data.params[key])
        if _AFTER not in follower.data.tags:  # its process has not come to say so
            _say_after(client, follower.info.run_id, run.info.run_id)
        run, key, number = follower, _NEXT, number + 1
        passed.append(run)
    now = time.time_ns() // 1_000_000
    client.log_batch(event.run_id, metrics=[Metric(SEQUENCE, number + 1, now, 0)])
    _say_after(client, event.run_id, run.info.run_id)
    events.point_to_claim(client, event)
    return passed


def _say_after(client: MlflowClient, run_id: str, before: str) -> None:
    """Write which act is before a claim; its own process and who passes by may both do so."""
    upsert(lambda: client.set_tag(run_id, _AFTER, before))


def _claimed(client: MlflowClient, run: Run, key: str, event: Event) -> bool:
    """Write an act's id as the one after another; False if there is one after it already."""
    try:
        client.log_param(run.info.run_id, key, event.run_id)
    except MlflowException as error:
        there = client.get_run(run.info.run_id)
        if there.info.lifecycle_stage != "active":
            raise RegistryToolsError(
                f"the history has a hole: run {run.info.run_id} was deleted in MLflow; bring it "
                f"back with: mlflow runs restore --run-id {run.info.run_id}"
            ) from error
        if key not in there.data.params:
            raise
        return there.data.params[key] == event.run_id
    return True


def _wait_until_closed(client: MlflowClient, run: Run, finish: Callable[[Event], object]) -> None:
    """Wait for an act and, where it ended without having had its turn, for those before it."""
    watch, said = heartbeat.HeartbeatMonitor(), False
    while run.info.status == "RUNNING" and not watch.has_expired:
        watch.sees_beat(run)
        if watch.seconds > 2 * heartbeat.HEARTBEAT_SECONDS and not said:
            said = True
            _log.warning("waiting for an act that gives no sign of life, run %s", run.info.run_id)
        time.sleep(_POLL_SECONDS)
        run = client.get_run(run.info.run_id)
    had_its_turn = run.data.tags.get("outcome") in {events.DONE, events.SUPERSEDED}
    if not had_its_turn and _AFTER in run.data.tags:
        _wait_until_closed(client, client.get_run(run.data.tags[_AFTER]), finish)
    if run.info.status == "RUNNING":
        finish(event_from_run(run))
