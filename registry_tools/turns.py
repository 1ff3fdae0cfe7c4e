"""Turns: of all clients that move one stage, one does so at a time, in a known order.

MLflow has no lock and no compare-and-swap, but a parameter of a run that nobody can write twice.
The acts on a stage form a chain: each claims the one before it by writing its own id there, and
waits until that one is closed. Whoever is at work gives signs of life; an act that gives none was
killed, and whoever waits for it finishes it.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from mlflow import MlflowClient
from mlflow.entities import Metric, Run, RunTag
from mlflow.exceptions import MlflowException

from registry_tools import history
from registry_tools.connection import translated
from registry_tools.errors import PromotionError, RegistryToolsError
from registry_tools.history import TURN, Act, act_of

_log = logging.getLogger(__name__)

BEAT_SECONDS = 1.0
# No sign of life for so long, on the waiting client's own clock: the process was killed.
DEAD_SECONDS = 10.0
_POLL_SECONDS = 0.05

_ALIVE = "alive"
_AFTER = "after"
_NEXT = "next"


@contextlib.contextmanager
def signs_of_life(client: MlflowClient, act: Act) -> Iterator[None]:
    """Give a sign of life every second while the body works."""
    over = threading.Event()

    def beat() -> None:
        count = 0
        while not over.wait(BEAT_SECONDS):
            count += 1
            # A registry that is away is told of by the work itself, which needs it too.
            with contextlib.suppress(RegistryToolsError), translated(client.tracking_uri):
                client.set_tag(act.run_id, _ALIVE, str(count))

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=BEAT_SECONDS)


def dead(client: MlflowClient, acts: Sequence[Act]) -> list[Act]:
    """Return those of some open acts whose process was killed; takes as long as that takes."""
    watched = {act.run_id: _Watch() for act in acts}
    alive: set[str] = set()
    while watched.keys() - alive:
        for act in acts:
            if act.run_id in alive:
                continue
            with translated(client.tracking_uri):
                run = client.get_run(act.run_id)
            watch = watched[act.run_id]
            if watch.sees_life(run) or not act_of(run).is_open:
                alive.add(act.run_id)
            elif watch.seconds > DEAD_SECONDS:
                return [act for act in acts if act.run_id not in alive]
        time.sleep(_POLL_SECONDS * 4)
    return []


class _Watch:
    """What one client has seen of an act: clocks of different machines are not compared."""

    def __init__(self) -> None:
        self._seen: str | None = None
        self._since: float | None = None

    def sees_life(self, run: Run) -> bool:
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


@contextlib.contextmanager
def turn(
    client: MlflowClient, model: str, act: Act, finish: Callable[[Act], object]
) -> Iterator[None]:
    """Hold the stage of an act for it alone, from when every act before it is closed.

    Parameters
    ----------
    client, model, act
        The act that is to have its turn.
    finish
        Closes an act that was killed, as what it came to.

    Raises
    ------
    PromotionError
        If this act was itself taken for killed, because its process stood still.
    """
    with translated(client.tracking_uri):
        for before in _claim(client, model, act):
            _wait_until_closed(client, before, finish)
        if not act_of(client.get_run(act.run_id)).is_open:
            raise PromotionError(
                f"this {act.action} stood still for so long that another took it for killed; "
                "nothing was moved: repeat it"
            )
    yield


def _claim(client: MlflowClient, model: str, act: Act) -> list[Run]:
    """Put an act at the end of its stage's chain; return those before it that may be open."""
    condition = f"tags.stage = '{act.stage}' and metrics.{TURN} > 0"
    last = history.find_runs(client, model, condition, limit=1, newest_by=TURN)
    if last:
        run, key, number = last[0], _NEXT, int(last[0].data.metrics[TURN])
    else:
        run, key, number = history.root(client, model), history.first_claim(act.stage), 0
    passed = [run]
    while not _claimed(client, run, key, act):
        follower = client.get_run(client.get_run(run.info.run_id).data.params[key])
        run, key, number = follower, _NEXT, number + 1
        passed.append(run)
    now = time.time_ns() // 1_000_000
    client.log_batch(
        act.run_id,
        metrics=[Metric(TURN, number + 1, now, 0)],
        tags=[RunTag(_AFTER, run.info.run_id)],
    )
    return passed


def _claimed(client: MlflowClient, run: Run, key: str, act: Act) -> bool:
    """Write an act's id as the one after another; False if there is one after it already."""
    try:
        client.log_param(run.info.run_id, key, act.run_id)
    except MlflowException as error:
        there = client.get_run(run.info.run_id)
        if there.info.lifecycle_stage != "active":
            raise RegistryToolsError(
                f"the history has a hole: run {run.info.run_id} was deleted in MLflow; bring it "
                f"back with: mlflow runs restore --run-id {run.info.run_id}"
            ) from error
        if key not in there.data.params:
            raise
        return there.data.params[key] == act.run_id
    return True


def _wait_until_closed(client: MlflowClient, run: Run, finish: Callable[[Act], object]) -> None:
    watch, said = _Watch(), False
    while run.info.status == "RUNNING":
        watch.sees_life(run)
        if watch.seconds > DEAD_SECONDS:
            # It may have been killed while it waited for one that is still at work.
            if _AFTER in run.data.tags:
                _wait_until_closed(client, client.get_run(run.data.tags[_AFTER]), finish)
            finish(act_of(run))
            return
        if watch.seconds > 2 * BEAT_SECONDS and not said:
            said = True
            _log.warning(
                "waiting for an act that gives no sign of life, at most %.0f s", DEAD_SECONDS
            )
        time.sleep(_POLL_SECONDS)
        run = client.get_run(run.info.run_id)
