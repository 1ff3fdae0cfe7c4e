"""The OpenAPI description, made from the signature of the served version, and a page for it.

The page reads the description as any tool would, with a key if one is needed, and needs nothing
from anywhere else: it opens in a network without a way out.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import orjson

from registry_tools.inference.predictor import Predictor
from registry_tools.serving.rest import schemas
from registry_tools.serving.rest.messages import JSON, Reply, Request
from registry_tools.serving.service import InferenceService
from registry_tools.serving.v2 import inference

_HTML = (b"content-type", b"text/html; charset=utf-8")
# Only the page's own scripts may run, and only this server may be called.
_POLICY = (
    b"content-security-policy",
    b"default-src 'none'; connect-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    b"frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
)
_TEXT: dict[str, Any] = {"text/plain": {}}
_OBJECT = {"application/json": {"schema": {"type": "object"}}}
# Path, summary, content, and whether it reports 503 while the server is not ready.
_PAGES: tuple[tuple[str, str, dict[str, Any], bool], ...] = (
    ("/health", "Is the process alive?", {"application/json": {}}, False),
    ("/ready", "Should requests be sent here?", _OBJECT, True),
    ("/model", "The served version, the last poll of the registry, the last error", _OBJECT, False),
    ("/metrics", "Metrics for Prometheus", _TEXT, False),
    ("/v2/health/ready", "Is it ready, in the Open Inference Protocol?", _OBJECT, True),
)
_ERROR = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
_SCORING_ERROR = {
    "type": "object",
    "properties": {"error_code": {"type": "string"}, "message": {"type": "string"}},
    "required": ["error_code", "message"],
}
_REFUSALS = {
    "400": "The request is invalid; the message says why",
    "401": "A key is needed",
    "408": "The body did not arrive in time",
    "413": "The body is too large",
    "415": "The body is compressed, or its Content-Type is unknown",
    "500": "The prediction failed; the server's log says why",
    "503": "Too many requests wait, or no model is loaded yet",
    "504": "No response in time",
}


async def openapi(service: InferenceService, request: Request) -> Reply:
    """Return the description that tools read."""
    predictor = request.assign(service.predictor())
    return Reply(orjson.dumps(describe_api(predictor), option=orjson.OPT_INDENT_2), headers=[JSON])


async def page(service: InferenceService, request: Request) -> Reply:
    """Return the page that people read; it says nothing of the model by itself."""
    return Reply(_docs_page(), headers=[_HTML, _POLICY])


@cache
def _docs_page() -> bytes:
    return Path(__file__).with_name("docs.html").read_bytes()


async def root(service: InferenceService, request: Request) -> Reply:
    """Redirect a browser that opens the address to the page."""
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
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": {**schemas.row_schemas(predictor), "Error": _ERROR, "ScoringError": _SCORING_ERROR},
        },
        "security": [{}, {"key": []}],
        "paths": {
            "/predict": {"post": _predict(predictor, example)},
            "/invocations": {"post": _invocations(predictor, example)},
            f"/v2/models/{predictor.artifact.name}/infer": {"post": _infer(predictor, example)},
            **{page[0]: {"get": _get_operation(*page[1:])} for page in _PAGES},
        },
    }


def _predict(predictor: Predictor, example: dict[str, Any]) -> dict[str, Any]:
    row = {
        "type": "object",
        "properties": {
            "prediction": {},
            "prediction_index": {"type": "integer"},
            "probabilities": {"type": "object", "additionalProperties": {"type": ["number", "null"]}},
        },
        "required": ["prediction"],
    }
    rows = {"type": "object", "properties": {"predictions": {"type": "array", "items": row}}}
    return _operation(
        "Predict one row, or a list of rows",
        schemas.predict_body(predictor),
        {"features": example["data"][0]},
        {"oneOf": [row, {**rows, "required": ["predictions"]}]},
    )


def _invocations(predictor: Predictor, example: dict[str, Any]) -> dict[str, Any]:
    columns = predictor.info.signature
    operation = _operation(
        "Predict rows as MLflow's own server does; CSV and Parquet as well",
        schemas.invocations_body(predictor),
        {"dataframe_split": example} if columns is not None else {"inputs": example["data"]},
        {"type": "object", "properties": {"predictions": {}}, "required": ["predictions"]},
        "ScoringError",
    )
    content = operation["requestBody"]["content"]
    if columns is not None:
        content["text/csv"] = {"schema": schemas.csv_body(columns)}
        content["application/vnd.apache.parquet"] = {}
    return operation


def _infer(predictor: Predictor, example: dict[str, Any]) -> dict[str, Any]:
    return _operation(
        "Predict rows given as tensors: the Open Inference Protocol, version 2",
        schemas.infer_body(predictor),
        _tensors(predictor, example),
        {"type": "object", "properties": {"outputs": {"type": "array"}}, "required": ["outputs"]},
    )


def _example(predictor: Predictor) -> dict[str, Any]:
    """Return the rows that the version was tried on when it was loaded, or the columns at least."""
    columns = predictor.info.signature or ()
    example = predictor.example or {}
    split, inputs = example.get("dataframe_split"), example.get("inputs")
    if isinstance(split, dict) and split.get("data"):
        return {"columns": split.get("columns"), "data": split["data"][:2]}
    if isinstance(inputs, list) and inputs and isinstance(inputs[0], list):
        return {"columns": None, "data": inputs[:2]}
    return {"columns": [c.name for c in columns], "data": [[None] * len(columns)]}


def _tensors(predictor: Predictor, example: dict[str, Any]) -> dict[str, Any]:
    inputs, outputs = inference.describe_model(predictor)
    rows = example["data"]
    columns: list[list[Any]] = [list(values) for values in zip(*rows, strict=True)]
    shape = [len(rows), 1]
    if predictor.info.signature is None:  # one tensor of all rows
        columns, shape = [[value for row in rows for value in row]], [len(rows), len(rows[0])]
    entries = [
        {"name": tensor.name, "shape": shape, "datatype": tensor.datatype, "data": data}
        for tensor, data in zip(inputs, columns, strict=False)
    ]
    return {"inputs": entries, "outputs": [{"name": tensor.name} for tensor in outputs]}


def _operation(
    summary: str,
    schema: dict[str, Any],
    example: dict[str, Any],
    response: dict[str, Any],
    error: str = "Error",
) -> dict[str, Any]:
    refused = {"application/json": {"schema": schemas.ref(error)}}
    return {
        "summary": summary,
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": schema, "example": example}},
        },
        "responses": {
            "200": {"description": "The predictions", "content": {"application/json": {"schema": response}}},
            **{code: {"description": text, "content": refused} for code, text in _REFUSALS.items()},
        },
    }


def _get_operation(summary: str, content: dict[str, Any], reports_readiness: bool) -> dict[str, Any]:
    codes = ["400", "401"] + ["503"] * reports_readiness
    refused = {"application/json": {"schema": {"type": "object"}}}
    return {
        "summary": summary,
        "responses": {
            "200": {"description": summary, "content": content},
            **{code: {"description": _REFUSALS[code], "content": refused} for code in codes},
        },
    }


ROUTES = {
    "/": {"GET": root, "HEAD": root},
    "/docs": {"GET": page, "HEAD": page},
    "/openapi.json": {"GET": openapi},
}
PROBES = {"/", "/docs"}
