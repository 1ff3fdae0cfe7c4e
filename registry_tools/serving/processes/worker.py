"""A worker: a process that follows the stage and serves its version; the supervisor forks it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

from registry_tools.inference.predictor import Predictor, skip_sklearn_validation
from registry_tools.serving.control import Control
from registry_tools.serving.observers.metrics import Metrics
from registry_tools.serving.observers.prediction_log import PredictionLog
from registry_tools.serving.observers.shadow import ShadowFeed, read_report
from registry_tools.serving.processes.http_server import BACKLOG, HttpServer
from registry_tools.serving.processes.lifecycle import run_loop, settle_memory
from registry_tools.serving.rollout.stage_follower import StageFollower
from registry_tools.serving.service import InferenceService
from registry_tools.serving.settings import Settings


def run(settings: Settings, listening: socket.socket, feed: socket.socket | None, control: Control) -> None:
    """Serve until the parent sends a signal or ends.

    Parameters
    ----------
    settings, listening
        The settings, and the socket to accept connections from, which all workers share.
    feed
        The socket to the shadow; None without a shadow.
    control
        The connection to the parent.

    Raises
    ------
    RegistryToolsError
        If no version can be served.
    """
    skip_sklearn_validation()
    service = InferenceService(settings, Metrics())
    with closing(service), _observe(service, feed, control.folder.shadow_report):
        run_loop(_serve(service, listening, control))


@contextmanager
def _observe(service: InferenceService, feed: socket.socket | None, shadow_report: Path) -> Iterator[None]:
    """Add the prediction log and the shadow to the observers."""
    settings, metrics = service.settings, service.metrics
    if feed is not None:
        service.observers.append(ShadowFeed(feed, metrics))
        service.reports["shadow"] = partial(read_report, shadow_report)
    if not settings.log_predictions:
        yield
        return
    log = PredictionLog(Path(settings.log_predictions), settings.sample, settings.log_every, metrics.logged)
    service.observers.append(log)
    service.reports["prediction_log"] = lambda: log.state
    with closing(log):
        yield


async def _serve(service: InferenceService, listening: socket.socket, control: Control) -> None:
    server = HttpServer(service)

    def swap(predictor: Predictor) -> None:
        service.data_plane.current = predictor  # requests in flight keep the version that they started with

    with closing(StageFollower(service.settings, control, swap, service.metrics)) as follower:
        service.rollout_status = follower.state
        # Before the stage is read for the first time, so that no signal to read it again is lost.
        control.on_poll(follower.wake)
        starting = asyncio.ensure_future(follower.start())
        control.on_end(starting.cancel)
        artifact = await starting
        control.on_end(server.end)

        async def refresh() -> None:
            await follower.refresh()
            control.send_refresh()

        def poll_soon() -> None:
            follower.wake()
            control.send_poll()

        service.refresh, service.poll_soon = refresh, poll_soon
        following = asyncio.create_task(follower.follow())
        settle_memory()
        listening.listen(BACKLOG)
        try:
            await server.serve_on(listening, lambda: control.send_ready(str(artifact)))
        finally:
            following.cancel()
