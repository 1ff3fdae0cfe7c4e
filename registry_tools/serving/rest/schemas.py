"""JSON schemas of the rows, tensors and CSV that a version takes.

The server accepts all that they allow. MLflow's protocol takes more than a schema can say: numbers
written as text, columns that the model does not have, unknown keys.
"""

from __future__ import annotations

import csv
import io
import re
from typing import Any

from registry_tools.data.schema import INTEGER_BOUNDS, NUMBERS, Column
from registry_tools.inference.decoder import METHODS
from registry_tools.inference.predictor import Predictor
from registry_tools.serving.v2 import inference

_TYPES = {"boolean": "boolean", "datetime": "string", "string": "string"}
_FLOAT_MAX = 3.4028234663852886e38
_CSV_CELLS = {"boolean": "(true|false)", "string": '[^",\\r\\n]+'}
_CSV_NUMBER = "-?(0|[1-9][0-9]{0,5})"

Schema = dict[str, Any]


def _value(column: Column, bound: int | None) -> Schema:
    """Return the schema of one value; integers are below the bound, if there is one."""
    found: Schema
    if column.type in INTEGER_BOUNDS:
        low, high = (1 - bound, bound - 1) if bound is not None else INTEGER_BOUNDS[column.type]
        found = {"type": "integer", "minimum": low, "maximum": high}
    elif column.type in NUMBERS:
        found = {"type": "number"}
        if column.type == "float":
            found |= {"minimum": -_FLOAT_MAX, "maximum": _FLOAT_MAX}
    else:
        found = {"type": _TYPES.get(column.type, "string")}
        if column.type == "datetime":
            found["format"] = "date-time"
    if not column.required:
        found["type"] = [found["type"], "null"]
    return found


def row_schemas(predictor: Predictor) -> dict[str, Schema]:
    """Return the schemas of a row: `Values` in the order of the signature, and `NamedValues`."""
    columns = predictor.info.signature
    if columns is None:
        value: Schema = {"type": ["number", "string", "boolean", "null"]}
        return {"Values": {"type": "array", "items": value}}
    values = _values(predictor, columns)
    named = {
        "type": "object",
        "properties": {c.name: value for c, value in zip(columns, values, strict=True)},
        "required": [c.name for c in columns if c.required],
        "additionalProperties": False,
    }
    count = len(values)
    array = {"type": "array", "prefixItems": values, "items": False, "minItems": count, "maxItems": count}
    return {"Values": array, "NamedValues": named}


def _values(predictor: Predictor, columns: tuple[Column, ...]) -> list[Schema]:
    bounds = dict(predictor.numeric_schema.bounds) if predictor.numeric_schema is not None else {}
    return [{"title": c.name, **_value(c, bounds.get(place))} for place, c in enumerate(columns)]


def predict_body(predictor: Predictor) -> Schema:
    """Return the body of `/predict`."""
    named = predictor.info.signature is not None
    row = {"anyOf": [ref("Values"), ref("NamedValues")]} if named else ref("Values")
    rows = {"type": "array", "items": row, "minItems": 1}
    return {
        "type": "object",
        "properties": {"features": {"anyOf": [row, rows]}, "proba": {"type": "boolean", "default": False}},
        "required": ["features"],
        "additionalProperties": False,
    }


def invocations_body(predictor: Predictor) -> Schema:
    """Return the body of `/invocations` as JSON: one of MLflow's four forms."""
    columns = predictor.info.signature
    params = {
        "type": ["object", "null"],
        "properties": {"method": {"enum": list(METHODS)}},
        "additionalProperties": False,
    }
    rows = {"type": "array", "items": ref("Values"), "minItems": 1}
    if columns is None:
        return _one_of({"inputs": rows}, params)
    records = {"type": "array", "items": ref("NamedValues"), "minItems": 1}
    split = {
        "type": "object",
        "properties": {"columns": {"const": [column.name for column in columns]}, "data": rows},
        "required": ["columns", "data"],
        "additionalProperties": False,
    }
    return _one_of(
        {"dataframe_split": split, **dict.fromkeys(("dataframe_records", "inputs", "instances"), records)},
        params,
    )


def _one_of(forms: dict[str, Schema], params: Schema) -> Schema:
    return {
        "oneOf": [
            {"type": "object", "properties": {name: form, "params": params}, "required": [name]}
            for name, form in forms.items()
        ]
    }


def csv_body(columns: tuple[Column, ...]) -> Schema:
    """Return the body of `/invocations` as CSV; numbers there may have a fraction and an exponent too."""
    header = io.StringIO()
    csv.writer(header, lineterminator="").writerow(column.name for column in columns)
    cells = ",".join(_CSV_CELLS.get(column.type, _CSV_NUMBER) for column in columns)
    return {"type": "string", "pattern": f"^{re.escape(header.getvalue())}(\\n{cells}){{1,20}}\\n$"}


def infer_body(predictor: Predictor) -> Schema:
    """Return the body of the Open Inference Protocol, for one row."""
    inputs, outputs = inference.describe_model(predictor)
    columns = predictor.info.signature
    if columns is None:
        return {"type": "object", "properties": {"inputs": {"type": "array"}}, "required": ["inputs"]}
    tensors = [
        {
            "type": "object",
            "properties": {
                "name": {"const": tensor.name},
                "shape": {"enum": [[1], [1, 1]]},
                "datatype": {"const": tensor.datatype},
                "data": {"type": "array", "items": value, "minItems": 1, "maxItems": 1},
            },
            "required": ["name", "shape", "datatype", "data"],
        }
        for tensor, value in zip(inputs, _values(predictor, columns), strict=False)
    ]
    count = len(tensors)
    names = [tensor.name for tensor in outputs] or ["predict"]
    return {
        "type": "object",
        "description": "One row; for more, a shape is [rows] or [rows, 1], with as many values.",
        "properties": {
            "inputs": {
                "type": "array", "prefixItems": tensors, "items": False, "minItems": count, "maxItems": count
            },
            "outputs": {
                "type": ["array", "null"],
                "items": {"type": "object", "properties": {"name": {"enum": names}}, "required": ["name"]},
            },
        },
        "required": ["inputs"],
    }  # fmt: skip


def ref(name: str) -> Schema:
    """Return a reference to one of the components."""
    return {"$ref": f"#/components/schemas/{name}"}
