"""The OpenAPI description of the served version, and the page `/docs` that shows it.

`openapi.json` describes any version; this module adds the columns, tensors and examples of the served
version. The server accepts all JSON that the schemas allow. MLflow's protocol also accepts requests that no
schema can describe: CSV, Parquet, numbers written as text, additional columns, unknown keys.

The page fetches the description as any tool would, with a key if one is needed. It loads nothing from
other servers, so it works without internet access.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from registry_tools.data.schema import Column
from registry_tools.inference.predictor import Predictor
from registry_tools.serving.rest.messages import Reply, Request
from registry_tools.serving.service import InferenceService
from registry_tools.serving.v2.model_tensors import TensorMetadata, model_tensors

_HTML = (b"content-type", b"text/html; charset=utf-8")
# The page may run only its own scripts, and connect only to this server.
_POLICY = (
    b"content-security-policy",
    b"default-src 'none'; connect-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    b"frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
)

Schema = dict[str, Any]


async def openapi(service: InferenceService, request: Request) -> Reply:
    """Return the OpenAPI description, for tools."""
    predictor = request.assign(service.predictor())
    return Reply(orjson.dumps(describe_api(predictor), option=orjson.OPT_INDENT_2))


async def page(service: InferenceService, request: Request) -> Reply:
    """Return the page for people; it contains nothing about the model, so it needs no key."""
    return Reply(_read_file("docs.html"), headers=[_HTML, _POLICY])


async def root(service: InferenceService, request: Request) -> Reply:
    """Redirect a browser from the root to the page."""
    return Reply(b"", 307, [(b"location", b"/docs")])


@cache
def _read_file(name: str) -> bytes:
    return Path(__file__).with_name(name).read_bytes()


def describe_api(predictor: Predictor) -> Schema:
    """Return the OpenAPI 3.1 description of a version."""
    api: Schema = orjson.loads(_read_file("openapi.json"))
    types: dict[str, Schema] = api.pop("x-column-types")
    name, columns = predictor.artifact.name, predictor.info.signature
    api["info"] = {
        "title": name,
        "version": predictor.label,
        "description": f"Served now: {predictor.artifact}.",
    }
    paths, schemas = api["paths"], api["components"]["schemas"]
    paths[f"/v2/models/{name}/infer"] = paths.pop("/v2/models/{name}/infer")
    predict, invocations, infer = (
        operations["post"]["requestBody"]["content"] for operations in paths.values() if "post" in operations
    )
    tensors = model_tensors(predictor)
    schemas["OutputName"] = {"enum": list(tensors.outputs) or ["predict"]}
    example = _example(predictor)
    if columns is None:  # a model of tensors
        schemas["InvocationsBody"] = {"$ref": "#/components/schemas/InputsBody"}
        del invocations["text/csv"], invocations["application/vnd.apache.parquet"]
        invocations["application/json"]["example"] = {"inputs": example["data"]}
    else:
        bounds = dict(predictor.numeric_schema.bounds) if predictor.numeric_schema is not None else {}
        values = [_value(column, types, bounds.get(place)) for place, column in enumerate(columns)]
        schemas |= _table_schemas(columns, values, tensors.inputs)
        invocations["application/json"]["example"] = {"dataframe_split": example}
    predict["application/json"]["example"] = {"features": example["data"][0]}
    infer["application/json"]["example"] = {
        "inputs": _tensors(columns, tensors.inputs, example["data"]),
        "outputs": [{"name": name} for name in tensors.outputs],
    }
    return api


def _table_schemas(columns: Sequence[Column], values: list[Schema], inputs: list[TensorMetadata]) -> Schema:
    """Return the schemas that depend on the columns of a signature, whose values have the given schemas."""
    names = [column.name for column in columns]
    named = {
        "type": "object",
        "properties": dict(zip(names, values, strict=True)),
        "required": [column.name for column in columns if column.required],
        "additionalProperties": False,
    }
    tensors = [_tensor(tensor, value) for tensor, value in zip(inputs, values, strict=False)]
    return {
        "Values": _sequence(values),
        "NamedValues": named,
        "ColumnNames": {"const": names},
        "Tensors": {
            **_sequence(tensors),
            "description": "One row; for more, a shape is [rows] or [rows, 1], with as many values.",
        },
    }


def _value(column: Column, types: dict[str, Schema], bound: int | None) -> Schema:
    """Return the schema of one value of a column; `bound` limits integers, if given."""
    found = {"title": column.name, **types.get(column.type, types["string"])}
    if bound is not None:
        found |= {"minimum": 1 - bound, "maximum": bound - 1}
    if not column.required:
        found["type"] = [found["type"], "null"]
    return found


def _sequence(items: Sequence[Schema]) -> Schema:
    count = len(items)
    return {"type": "array", "prefixItems": items, "items": False, "minItems": count, "maxItems": count}


def _tensor(tensor: TensorMetadata, value: Schema) -> Schema:
    """Return the schema of a tensor with one value."""
    properties = {
        "name": {"const": tensor.name},
        "shape": {"enum": [[1], [1, 1]]},
        "datatype": {"const": tensor.datatype},
        "data": {"type": "array", "items": value, "minItems": 1, "maxItems": 1},
    }
    return {"type": "object", "properties": properties, "required": list(properties)}


def _example(predictor: Predictor) -> dict[str, Any]:
    """Return example rows of the version, or a row of nulls if it has no example."""
    columns = predictor.info.signature or ()
    example = predictor.example or {}
    split, inputs = example.get("dataframe_split"), example.get("inputs")
    if isinstance(split, dict) and split.get("data"):
        return {"columns": split.get("columns"), "data": split["data"][:2]}
    if isinstance(inputs, list) and inputs and isinstance(inputs[0], list):
        return {"columns": None, "data": inputs[:2]}
    return {"columns": [c.name for c in columns], "data": [[None] * len(columns)]}


def _tensors(
    columns: Sequence[Column] | None, inputs: Sequence[TensorMetadata], rows: list[list[Any]]
) -> list[dict[str, Any]]:
    """Return rows as the input tensors of a request."""
    shape, values = [len(rows), 1], [list(column) for column in zip(*rows, strict=True)]
    if columns is None:  # one tensor of all rows
        shape, values = [len(rows), len(rows[0])], [[value for row in rows for value in row]]
    return [
        {"name": tensor.name, "shape": shape, "datatype": tensor.datatype, "data": data}
        for tensor, data in zip(inputs, values, strict=False)
    ]


ROUTES = {
    "/": {"GET": root, "HEAD": root},
    "/docs": {"GET": page, "HEAD": page},
    "/openapi.json": {"GET": openapi},
}
PROBES = {"/", "/docs"}
