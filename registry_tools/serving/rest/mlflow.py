"""MLflow's scoring protocol: `/invocations`, `/ping`, `/health`, `/version`."""

from __future__ import annotations

import functools
from importlib import metadata
from typing import Any

import orjson

from registry_tools.inference import decoder
from registry_tools.inference.mlflow_scoring import PARQUET
from registry_tools.inference.predictor import METHODS, Predictor
from registry_tools.serving.engine.data_plane import LARGE_BODY
from registry_tools.serving.errors import RequestRefused
from registry_tools.serving.rest.messages import JSON, Reply, Request, parse_json, parse_json_like_mlflow
from registry_tools.serving.service import InferenceService

JSON_TYPE = "application/json"
CSV = "text/csv"
_TYPES = (JSON_TYPE, CSV, PARQUET)
_CODES = {
    400: "BAD_REQUEST",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
}


async def invocations(service: InferenceService, request: Request) -> Reply:
    """Predict rows in any format that MLflow takes."""
    content_type = _content_type(request.headers.get(b"content-type"))
    body = request.body
    predictor = request.assign(service.predictor())
    content: Any = body
    matrix, method = None, "predict"
    if content_type == JSON_TYPE:
        if len(body) <= LARGE_BODY:
            matrix, method = _parse(body, predictor)
        else:
            matrix, method = await service.data_plane.run_in_pool(_parse, body, predictor)
    elif content_type == CSV and predictor.numeric_schema is not None:
        matrix = await service.data_plane.run_in_pool(decoder.matrix_from_csv, body, predictor.numeric_schema)
    if matrix is None:
        if content_type == JSON_TYPE:
            content = await service.data_plane.run_in_pool(_parse_like_mlflow, body)
        scored = await service.data_plane.predict_body(predictor, method, content, content_type, request.id)
        request.rows = scored.count
        return Reply(scored.reply)
    request.rows = len(matrix)
    predictions = await service.data_plane.predict(predictor, method, matrix, request.id)
    return Reply(b'{"predictions":' + orjson.dumps(predictions) + b"}")


def _parse(body: bytes, predictor: Predictor) -> tuple[decoder.Matrix | None, str]:
    """Return the rows, None if MLflow is to read them, and the method that is asked for."""
    content = parse_json(body)
    method = "predict"
    if not isinstance(content, dict):
        return None, method
    if content.get("params") is not None:
        method, params = _method(content.pop("params"))
        if params:
            if not predictor.mlflow_scoring.accepts_params:
                raise RequestRefused(400, f"params has an unknown key: {sorted(params)[0][:50]!r}")
            return None, method
    if predictor.numeric_schema is None:
        return None, method
    return decoder.matrix_from_json(content, predictor.numeric_schema), method


def _parse_like_mlflow(body: bytes) -> Any:
    content = parse_json_like_mlflow(body)
    if isinstance(content, dict) and isinstance(content.get("params"), dict):
        content["params"].pop("method", None)  # which `_parse` has checked
        if not content["params"]:
            del content["params"]
    return content


def _method(params: Any) -> tuple[str, dict[str, Any]]:
    """Return the method that params ask for, and what else they hold."""
    if not isinstance(params, dict):
        raise RequestRefused(400, "params is no JSON object")
    method = params.pop("method", "predict")
    if method not in METHODS:
        raise RequestRefused(400, f"params: method is one of {', '.join(METHODS)}")
    return method, params


@functools.lru_cache(maxsize=64)
def _content_type(given: bytes | None) -> str:
    """Return the type of the body, checked as MLflow does.

    Raises
    ------
    RequestRefused
        415 if it is missing, another, in another encoding, or has a parameter nobody knows.
    """
    known = ", ".join(_TYPES)
    if given is None:
        raise RequestRefused(415, f"the Content-Type is missing: send one of {known}")
    kind, *parameters = (part.strip() for part in given.decode("latin-1").lower().split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name != "charset":
            raise RequestRefused(415, "a Content-Type here has no parameter but charset")
        if value.strip('"') != "utf-8":
            raise RequestRefused(415, "only UTF-8 is understood")
    if kind not in _TYPES:
        raise RequestRefused(415, f"this Content-Type is not understood: send one of {known}")
    return kind


async def alive(service: InferenceService, request: Request) -> Reply:
    """Report that the server runs; an empty line, as MLflow sends it."""
    return Reply(b"\n")


async def version(service: InferenceService, request: Request) -> Reply:
    """Return the version of MLflow whose protocol this is."""
    return Reply(_mlflow_version())


@functools.cache
def _mlflow_version() -> bytes:
    return metadata.version("mlflow").encode()


def error(status: int, message: str) -> Reply:
    """Return an error as MLflow writes it."""
    code = _CODES.get(status, "INTERNAL_ERROR" if status >= 500 else "INVALID_REQUEST")
    return Reply(orjson.dumps({"error_code": code, "message": message}), status, [JSON])


ROUTES = {
    "/invocations": {"POST": invocations},
    "/ping": {"GET": alive, "HEAD": alive},
    "/health": {"GET": alive, "HEAD": alive},
    "/version": {"GET": version, "HEAD": version},
}
PROBES = {"/ping", "/health", "/version"}
