"""The routes about the state of the server: `/ready`, `/model`, `/metrics` and `/-/refresh`."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

import orjson

from registry_tools.serving.errors import RequestRefused
from registry_tools.serving.rest.connection_rules import is_local, refuse_other_origins
from registry_tools.serving.rest.messages import Reply, Request
from registry_tools.serving.service import InferenceService
from registry_tools.serving.threads import run_in_thread


async def ready(service: InferenceService, request: Request) -> Reply:
    """Report whether clients should send requests: a model is loaded, and the server is not draining."""
    if not service.ready:
        raise RequestRefused(503, "no model is loaded yet, or the server is shutting down")
    return Reply(b'{"ready":true}')


async def model(service: InferenceService, request: Request) -> Reply:
    """Return the served version, and the state of the rollout."""
    predictor = service.data_plane.current
    description: dict[str, Any] = {"name": None, "version": None}
    if predictor is not None:
        description = asdict(predictor.artifact) | {"loaded_at": predictor.loaded_at}
        del description["folder"]  # of this machine
    reports = {name: report() for name, report in service.reports.items()}
    content = description | reports | service.rollout_status
    return Reply(orjson.dumps(content, option=orjson.OPT_INDENT_2))


async def metrics(service: InferenceService, request: Request) -> Reply:
    """Return the metrics of all workers."""
    text = await run_in_thread(service.metrics.exposition, "metrics")
    return Reply(text, headers=[(b"content-type", service.metrics.content_type.encode())])


async def refresh(service: InferenceService, request: Request) -> Reply:
    """Poll the registry at once, and return the new state as `/model` does."""
    refuse_other_origins(request)
    if not service.settings.api_keys and not is_local(request):
        raise RequestRefused(403, "refresh from this machine, or start the server with --api-key-file")
    if service.refresh is None:
        raise RequestRefused(503, "no stage is followed yet: try again")
    # Finish the poll even if the client disconnects.
    await asyncio.shield(service.refresh())
    return await model(service, request)


ROUTES = {
    "/ready": {"GET": ready, "HEAD": ready},
    "/model": {"GET": model, "HEAD": model},
    "/metrics": {"GET": metrics, "HEAD": metrics},
    "/-/refresh": {"POST": refresh},
}
PROBES = {"/ready"}
