"""A worker: a process that follows the stage and serves its version; the supervisor forks it."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

from registry_tools.inference.model_artifact import ModelArtifact
from registry_tools.inference.model_loader import load
from registry_tools.inference.predictor import Predictor, skip_sklearn_validation
from registry_tools.serving.observers.metrics import Metrics
from registry_tools.serving.observers.prediction_log import PredictionLog
from registry_tools.serving.observers.shadow import ShadowFeed, read_report
from registry_tools.serving.processes.control import Control, ProcessFolder
from registry_tools.serving.processes.http_server import BACKLOG, HttpServer
from registry_tools.serving.processes.lifecycle import run_loop, run_unless_stopped, settle_memory
from registry_tools.serving.rollout.stage_follower import StageFollower
from registry_tools.serving.rollout.trials import Trials
from registry_tools.serving.service import InferenceService
from registry_tools.serving.settings import Settings

_log = logging.getLogger(__name__)


def run(
    settings: Settings,
    listening: socket.socket,
    feed: socket.socket | None,
    folder: ProcessFolder,
    control: Control,
) -> int:
    """Serve until the parent sends a signal or ends; return the exit code.

    Parameters
    ----------
    settings, listening
        The settings, and the socket to accept connections from, which all workers share.
    feed
        The socket to the shadow; None without a shadow.
    folder
        The files that the processes of this server share.
    control
        The connection to the parent.

    Raises
    ------
    RegistryToolsError
        If no version can be served.
    """
    skip_sklearn_validation()
    metrics = Metrics()
    service = InferenceService(settings, metrics)
    with closing(service), _observe(service, metrics, feed, folder):
        return run_loop(_serve(service, listening, folder, control))


@contextmanager
def _observe(
    service: InferenceService, metrics: Metrics, feed: socket.socket | None, folder: ProcessFolder
) -> Iterator[None]:
    """Add the prediction log and the shadow to the observers."""
    settings = service.settings
    if feed is not None:
        service.observers.append(ShadowFeed(feed, metrics))
        service.reports["shadow"] = partial(read_report, folder.shadow_report)
    if not settings.log_predictions:
        yield
        return
    log = PredictionLog(Path(settings.log_predictions), settings.sample, settings.log_every, metrics.logged)
    service.observers.append(log)
    service.reports["prediction_log"] = lambda: log.state
    try:
        yield
    finally:
        log.close()


async def _serve(
    service: InferenceService, listening: socket.socket, folder: ProcessFolder, control: Control
) -> int:
    settings, metrics = service.settings, service.metrics
    ending = asyncio.Event()
    server = HttpServer(service)
    control.on_end(ending.set)
    fetcher = folder.fetcher(settings, settings.ref)
    trials = Trials(control.connection, folder.trials, folder.path, settings.policy, settings.trial_limits)

    def swap(predictor: Predictor) -> None:
        service.data_plane.current = predictor  # requests in flight keep the version that they started with

    follower = StageFollower(
        fetcher, loader(trials, settings), swap, metrics, settings.poll, settings.load_seconds
    )
    service.rollout_status = follower.state
    try:
        artifact = await run_unless_stopped(follower.start(control.server_has_served), ending)
        if artifact is None:
            return 0
        control.on_end(server.end)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, follower.wake)

        async def refresh() -> None:
            await follower.refresh()
            control.send_refresh()

        service.refresh = refresh
        following = asyncio.create_task(follower.follow())
        settle_memory()
        listening.listen(BACKLOG)
        try:
            await server.serve_on(listening, lambda: control.send_ready(str(artifact)))
        finally:
            following.cancel()
    finally:
        fetcher.close()
    return 0


def loader(trials: Trials, settings: Settings) -> Callable[[ModelArtifact], Predictor]:
    """Return a function that tries a version in a trial, then loads it in this process."""

    def try_and_load(artifact: ModelArtifact) -> Predictor:
        with trials.passed(artifact):
            predictor = load(artifact, settings.policy)
        if predictor.example is None:
            _log.warning("%s has no example, so that its predictions were not tried", artifact)
        elif not artifact.recorded_predictions.is_file():
            _log.warning("%s has no recorded predictions: it was tried on its input example", artifact)
        return predictor

    return try_and_load
