"""The OpenAPI description, made from the signature of the served version, and a page for it.

The page reads the description as any tool would, with a key if one is needed, and needs nothing
from anywhere else: it opens in a network without a way out.
"""

from __future__ import annotations

from typing import Any

import orjson

from registry_tools.data.schema import Column
from registry_tools.inference.predictor import METHODS, Predictor
from registry_tools.serving.rest.docs_page import PAGE
from registry_tools.serving.rest.messages import JSON, Reply, Request
from registry_tools.serving.service import InferenceService
from registry_tools.serving.v2 import inference

_TYPES: dict[str, dict[str, Any]] = {
    "double": {"type": "number"},
    "float": {"type": "number"},
    "long": {"type": "integer"},
    "integer": {"type": "integer"},
    "boolean": {"type": "boolean"},
    "datetime": {"type": "string", "format": "date-time"},
}
_HTML = (b"content-type", b"text/html; charset=utf-8")
# Only the page's own scripts may run, and only this server may be called.
_POLICY = (
    b"content-security-policy",
    b"default-src 'none'; connect-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    b"frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
)
_PAGES = {
    "/health": "Is the process alive?",
    "/ready": "Should requests be sent here?",
    "/model": "The served version, the last poll of the registry, the last error",
    "/metrics": "Metrics for Prometheus",
    "/v2/health/ready": "Is it ready, in the Open Inference Protocol?",
}
_REFUSALS = {
    "400": "The request is invalid; the message says why",
    "401": "A key is needed",
    "408": "The body did not arrive in time",
    "413": "The body is too large",
    "503": "Too many requests wait, or no model is loaded yet",
    "504": "No response in time",
}


async def openapi(service: InferenceService, request: Request) -> Reply:
    """Return the description that tools read."""
    predictor = request.assign(service.predictor())
    return Reply(orjson.dumps(describe_api(predictor), option=orjson.OPT_INDENT_2), headers=[JSON])


async def page(service: InferenceService, request: Request) -> Reply:
    """Return the page that people read; it says nothing of the model by itself."""
    return Reply(PAGE, headers=[_HTML, _POLICY])


async def root(service: InferenceService, request: Request) -> Reply:
    """Lead whoever opens the address in a browser to the page."""
    return Reply(b"", 307, [(b"location", b"/docs")])


def describe_api(predictor: Predictor) -> dict[str, Any]:
    """Return the interface to a version as OpenAPI 3.1."""
    example = _example(predictor)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": predictor.artifact.name,
            "version": predictor.label,
            "description": f"Served now: {predictor.artifact}.",
        },
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "security": [{}, {"key": []}],
        "paths": {
            "/predict": {"post": _predict(predictor, example)},
            "/invocations": {"post": _invocations(predictor, example)},
            f"/v2/models/{predictor.artifact.name}/infer": {"post": _infer(predictor, example)},
            **{path: {"get": _get_operation(summary)} for path, summary in _PAGES.items()},
        },
    }


def _predict(predictor: Predictor, example: dict[str, Any]) -> dict[str, Any]:
    return _operation(
        "Predict one row",
        {"features": _features(predictor.info.signature)},
        {"features": example["data"][0]},
        {"prediction": {}, "prediction_index": {"type": "integer"}},
    )


def _invocations(predictor: Predictor, example: dict[str, Any]) -> dict[str, Any]:
    params = {"type": "object", "properties": {"method": {"enum": list(METHODS)}}}
    operation = _operation(
        "Predict rows as MLflow's own server does; CSV and Parquet as well",
        {"dataframe_split": _split(predictor.info.signature), "params": params},
        {"dataframe_split": example},
        {"predictions": {"type": "array"}},
    )
    for kind in ("text/csv", "application/vnd.apache.parquet"):
        operation["requestBody"]["content"][kind] = {}
    operation["responses"]["415"] = {"description": "This Content-Type is not understood"}
    return operation


def _infer(predictor: Predictor, example: dict[str, Any]) -> dict[str, Any]:
    return _operation(
        "Predict rows given as tensors: the Open Inference Protocol, version 2",
        {"inputs": {"type": "array"}, "outputs": {"type": "array"}},
        _tensors(predictor, example),
        {"outputs": {"type": "array"}},
    )


def _example(predictor: Predictor) -> dict[str, Any]:
    """Return the rows that the version was tried on when it was loaded, or the columns at least."""
    columns = predictor.info.signature or ()
    given = (predictor.example or {}).get("dataframe_split")
    if isinstance(given, dict) and given.get("data"):
        return {"columns": given.get("columns"), "data": given["data"][:2]}
    return {"columns": [c.name for c in columns], "data": [[None] * len(columns)]}


def _tensors(predictor: Predictor, example: dict[str, Any]) -> dict[str, Any]:
    inputs, outputs = inference.describe_model(predictor)
    rows = example["data"]
    entries = []
    for place, tensor in enumerate(inputs):
        data = [row[place] for row in rows if place < len(row)]
        shape = [len(rows), 1]
        entry = {"name": tensor.name, "shape": shape, "datatype": tensor.datatype, "data": data}
        entries.append(entry)
    return {"inputs": entries, "outputs": [{"name": tensor.name} for tensor in outputs]}


def _features(columns: tuple[Column, ...] | None) -> dict[str, Any]:
    if columns is None:
        return {"type": "array"}
    items = [{"title": c.name, **_TYPES.get(c.type, {"type": "string"})} for c in columns]
    return {
        "type": "array",
        "prefixItems": items,
        "minItems": len(items),
        "maxItems": len(items),
        "description": ", ".join(f"{c.name} ({c.type})" for c in columns),
    }


def _split(columns: tuple[Column, ...] | None) -> dict[str, Any]:
    names = [column.name for column in columns or ()]
    return {
        "type": "object",
        "properties": {
            "columns": {"type": "array", "items": {"enum": names} if names else {}},
            "data": {"type": "array", "items": _features(columns)},
        },
    }


def _operation(
    summary: str, properties: dict[str, Any], example: dict[str, Any], response: dict[str, Any]
) -> dict[str, Any]:
    body = {"schema": {"type": "object", "properties": properties}, "example": example}
    content = {"schema": {"type": "object", "properties": response}}
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": body}},
        "responses": {
            "200": {"description": "The predictions", "content": {"application/json": content}},
            **{code: {"description": text} for code, text in _REFUSALS.items()},
        },
    }


def _get_operation(summary: str) -> dict[str, Any]:
    return {"summary": summary, "responses": {"200": {"description": summary}}}


ROUTES = {
    "/": {"GET": root, "HEAD": root},
    "/docs": {"GET": page, "HEAD": page},
    "/openapi.json": {"GET": openapi},
}
PROBES = {"/", "/docs"}
