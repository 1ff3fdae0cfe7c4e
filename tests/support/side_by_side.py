"""Run MLflow's scoring server and ours in this process with the same model, to compare responses."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import mlflow
import sklearn
from mlflow.models import infer_signature
from mlflow.pyfunc import scoring_server

from registry_tools.inference.model_artifact import ModelArtifact
from registry_tools.inference.model_loader import load
from registry_tools.models.trust_policy import TRUSTED_TYPES
from registry_tools.serving.observers.metrics import Metrics
from registry_tools.serving.rest.app import HttpApp
from registry_tools.serving.service import InferenceService
from registry_tools.serving.settings import Settings

JSON, CSV, PARQUET = "application/json", "text/csv", "application/vnd.apache.parquet"
# Sends a body with a content type, and returns our response and MLflow's response.
Ask = Callable[..., tuple[httpx.Response, httpx.Response]]


def side_by_side(folder: Path, **settings: Any) -> Ask:
    """Load the model in `folder / "model"` into both servers."""
    theirs = scoring_server.init(mlflow.pyfunc.load_model(str(folder / "model")))
    service = InferenceService(Settings(ref="trained@production", **settings), Metrics())
    artifact = ModelArtifact(str(folder), "trained", 1, "production", None, None)
    service.data_plane.current = load(artifact, service.settings.trust_policy)
    app = HttpApp(service)

    async def send(app: Any, body: bytes, kind: str | None, path: str, method: str) -> httpx.Response:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            headers = {} if kind is None else {"content-type": kind}
            return await client.request(method, path, content=body, headers=headers)

    async def both(*request: Any) -> tuple[httpx.Response, httpx.Response]:
        return await send(app, *request), await send(theirs, *request)

    def ask(
        body: bytes, kind: str | None = JSON, path: str = "/invocations", method: str = "POST"
    ) -> tuple[httpx.Response, httpx.Response]:
        with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):  # as the server does
            return asyncio.run(both(body, kind, path, method))

    return ask


def save_sklearn(
    fitted: Any,
    folder: Path,
    rows: Any,
    params: dict[str, Any] | None = None,
    metadata: dict[str, Any] | None = None,
) -> None:
    """Save a scikit-learn model with the signature of some rows, in a format that runs no code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow warns that integer columns cannot have missing values
        mlflow.sklearn.save_model(
            fitted,
            folder,
            signature=infer_signature(rows, fitted.predict(rows), params),
            input_example=rows[4:7],
            pip_requirements=[],
            metadata=metadata,
            serialization_format="skops",
            skops_trusted_types=list(TRUSTED_TYPES),
        )
