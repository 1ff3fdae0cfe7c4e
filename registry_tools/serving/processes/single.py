"""The server in one process, which follows the stage and serves: the least memory."""

from __future__ import annotations

import asyncio
import signal
import socket

import uvloop

from registry_tools.serving.observers.metrics import Metrics
from registry_tools.serving.observers.shadow import Shadow, ShadowFeed
from registry_tools.serving.processes import lifecycle
from registry_tools.serving.processes.http_server import BACKLOG, HttpServer
from registry_tools.serving.processes.worker import Worker
from registry_tools.serving.rollout.stage_follower import StageFollower, artifact_fetcher_for
from registry_tools.serving.settings import Settings


def run(settings: Settings, listening: socket.socket) -> int:
    """Serve until a signal, and return the exit code; raises as `serve.run`."""
    return uvloop.run(_run(settings, listening))


async def _run(settings: Settings, listening: socket.socket) -> int:
    ending = asyncio.Event()
    lifecycle.stop_on_signals(ending.set)
    metrics = Metrics()
    worker = Worker(settings, metrics)
    fetcher = artifact_fetcher_for(settings)
    follower = StageFollower(fetcher, lambda: [worker], metrics, settings.poll)
    server = HttpServer(worker.service)
    shadow = Shadow(settings, follower.report_shadow) if settings.shadow else None
    tasks = []
    try:
        artifact = await lifecycle.run_unless_stopped(follower.start(), ending)
        if artifact is None:
            return 0
        lifecycle.stop_on_signals(server.end)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, follower.wake)
        worker.service.refresh = follower.refresh
        tasks.append(asyncio.create_task(follower.follow()))
        if shadow is not None:
            worker.service.observers.append(ShadowFeed(shadow.feed, metrics))
            tasks.append(asyncio.create_task(shadow.run()))
        lifecycle.settle_memory()
        listening.listen(BACKLOG)
        lifecycle.announce(settings, listening, str(artifact))
        await server.serve_on(listening)
    finally:
        for task in tasks:
            task.cancel()
        if shadow is not None:
            await shadow.end()
        worker.close()
        fetcher.close()
    return 0
