"""MLflow's scoring protocol: `/invocations`, `/ping`, `/health`, `/version`."""

from __future__ import annotations

import functools
from importlib import metadata

import orjson

from registry_tools.inference.mlflow_scoring import CSV, PARQUET, InvalidParameterValue, encode_json
from registry_tools.inference.mlflow_scoring import JSON as JSON_TYPE
from registry_tools.serving.engine.data_plane import LARGE_BODY
from registry_tools.serving.errors import RequestRefused
from registry_tools.serving.rest.messages import JSON, Reply, Request
from registry_tools.serving.service import InferenceService

_TYPES = (JSON_TYPE, CSV, PARQUET)
_CODES = {
    400: "BAD_REQUEST",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
}


async def invocations(service: InferenceService, request: Request) -> Reply:
    """Predict rows in any format of MLflow's scoring protocol."""
    content_type = _content_type(request.headers.get(b"content-type"))
    predictor = request.assign(service.predictor())
    data_plane = service.data_plane
    try:
        matrix, method = None, "predict"
        if content_type == JSON_TYPE:
            is_large = len(request.body) > LARGE_BODY
            matrix, method = await data_plane.run(is_large, predictor.decode_json, request.body)
        if matrix is not None:
            request.rows = len(matrix)
            predictions = await data_plane.predict(predictor, method, matrix, request.id)
            return Reply(b'{"predictions":' + encode_json(predictions) + b"}")
        scored = await data_plane.predict_body(predictor, method, request.body, content_type, request.id)
    except InvalidParameterValue as invalid:
        return error(400, invalid.public, "INVALID_PARAMETER_VALUE")
    request.rows = scored.count
    return Reply(scored.reply)


@functools.lru_cache(maxsize=64)
def _content_type(given: bytes | None) -> str:
    """Return the type of the body, after the checks that MLflow makes.

    Raises
    ------
    RequestRefused
        415 if the type is missing or unknown, its encoding is not UTF-8, or it has an unknown parameter.
    """
    known = ", ".join(_TYPES)
    if given is None:
        raise RequestRefused(415, f"the Content-Type is missing: send one of {known}")
    kind, *parameters = (part.strip() for part in given.decode("latin-1").lower().split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name != "charset":
            raise RequestRefused(415, "charset is the only supported parameter of Content-Type")
        if value.strip('"') != "utf-8":
            raise RequestRefused(415, "only UTF-8 is supported")
    if kind not in _TYPES:
        raise RequestRefused(415, f"this Content-Type is not supported: send one of {known}")
    return kind


async def alive(service: InferenceService, request: Request) -> Reply:
    """Report that the server runs, by an empty line as in MLflow."""
    return Reply(b"\n")


async def version(service: InferenceService, request: Request) -> Reply:
    """Return the version of MLflow."""
    return Reply(metadata.version("mlflow").encode())


def error(status: int, message: str, code: str | None = None) -> Reply:
    """Return an error in MLflow's format."""
    code = code or _CODES.get(status, "INTERNAL_ERROR" if status >= 500 else "INVALID_REQUEST")
    return Reply(orjson.dumps({"error_code": code, "message": message}), status, [JSON])


async def redirect(service: InferenceService, request: Request) -> Reply:
    """Redirect a client to the address without the slash at the end, as MLflow's server does."""
    return Reply(b"", 307, [(b"location", request.path.rstrip("/").encode("ascii"))])


PROBES = {"/ping", "/health", "/version"}
ROUTES = {
    "/invocations": {"POST": invocations},
    "/ping": {"GET": alive, "HEAD": alive},
    "/health": {"GET": alive, "HEAD": alive},
    "/version": {"GET": version, "HEAD": version},
    "/invocations/": {"POST": redirect},
    **{f"{path}/": {"GET": redirect, "HEAD": redirect} for path in sorted(PROBES)},
}
