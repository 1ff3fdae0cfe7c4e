"""The simple protocol `POST /predict`: the features of one row or several, by position or by name."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from registry_tools.data import schema
from registry_tools.data.schema import NUMBERS, Column, quoted_names, unmet_requirement
from registry_tools.errors import InputError, UnsupportedOperation
from registry_tools.inference.decoder import Matrix, cast_matrix
from registry_tools.inference.input_limits import InputLimits, check_row_count
from registry_tools.inference.predictor import Predictor
from registry_tools.serving.engine.data_plane import LARGE_BODY
from registry_tools.serving.errors import RequestRefused
from registry_tools.serving.rest.messages import Reply, Request, parse_json
from registry_tools.serving.service import InferenceService

_REFUSALS = {
    schema.A_NUMBER: "not numeric",
    schema.FINITE: "not finite",
    schema.TEXT: "not text",
    schema.BOOLEAN: "not true or false",
}
_FORM = 'send {"features": [value, …]}, {"features": {"name": value, …}} or a list of such rows'


async def predict(service: InferenceService, request: Request) -> Reply:
    """Predict one row, or a list of rows."""
    predictor = request.assign(service.predictor())
    data_plane = service.data_plane
    is_large = len(request.body) > LARGE_BODY
    rows, is_list, proba = await data_plane.run(is_large, _parse, request.body, predictor, data_plane.limits)
    predict_rows: Any = data_plane.predict_json if isinstance(rows, dict) else data_plane.predict
    probabilities = await predict_rows(predictor, "predict_proba", rows, None) if proba else None
    predictions = await predict_rows(predictor, "predict", rows, request.id)
    request.rows = len(predictions)
    return Reply(await data_plane.run(is_large, _encode, predictor, predictions, probabilities, is_list))


def _parse(
    body: bytes, predictor: Predictor, limits: InputLimits
) -> tuple[Matrix | dict[str, Any], bool, bool]:
    """Return the rows, whether the request has a list of rows, and whether it asks for probabilities."""
    content = parse_json(body)
    if not isinstance(content, dict) or "features" not in content:
        raise RequestRefused(400, f"features are missing: {_FORM}")
    features, proba = content.pop("features"), content.pop("proba", False)
    if content:
        unknown = next(iter(content))[:50]
        raise RequestRefused(400, f"key {unknown!r} is unknown: the keys are features and proba")
    if not isinstance(proba, bool):
        raise RequestRefused(400, "proba is neither true nor false")
    if isinstance(features, list) and features and isinstance(features[0], (list, dict)):
        check_row_count(len(features), limits)
        return _rows(features, predictor, "row {}: "), True, proba
    return _rows([features], predictor, ""), False, proba


def _rows(rows: list[Any], predictor: Predictor, place: str) -> Matrix | dict[str, Any]:
    """Return rows as a matrix, or in the form of MLflow's protocol if not all columns are numbers.

    Unlike MLflow, the function converts no value and fills in no missing value.
    """
    columns = predictor.info.signature
    table = []
    for number, row in enumerate(rows):
        try:
            table.append(_values(row, columns))
        except InputError as error:
            raise InputError(place.format(number) + str(error)) from None
    if columns is None:
        return {"inputs": table}
    if predictor.numeric_schema is None:
        return {"dataframe_split": {"columns": [column.name for column in columns], "data": table}}
    matrix = cast_matrix(np.array(table, dtype=np.float64), predictor.numeric_schema)
    if matrix is None:
        raise InputError("a feature is larger than its column holds")
    return matrix


def _values(row: Any, columns: Sequence[Column] | None) -> list[Any]:
    """Check the values of one row, and return them in the order of the signature."""
    if isinstance(row, dict):
        row = _in_order(row, columns)
    if not isinstance(row, list):
        raise InputError(f"features is not a list of values: {_FORM}")
    if columns is None:
        if any(isinstance(value, (list, dict)) for value in row):
            raise InputError("a feature is not a single value: send tensors to /invocations")
        return row
    if len(row) != len(columns):
        needed = quoted_names(column.name for column in columns)
        raise InputError(f"{len(row)} features given, {len(columns)} are needed: {needed}")
    for column, value in zip(columns, row, strict=True):
        if value is None and not column.required:
            continue
        kind = "double" if column.type in NUMBERS else column.type
        reason = unmet_requirement(value, kind)
        if reason is not None:
            raise InputError(f"feature {column.name!r} is {_REFUSALS[reason]}")
        if column.type in schema.INTEGER_BOUNDS and value != int(value):
            raise InputError(f"feature {column.name!r} is not a whole number")
    return row


def _in_order(row: dict[str, Any], columns: Sequence[Column] | None) -> list[Any]:
    if columns is None:
        raise InputError("this model does not name its features: send a list of values")
    names = [column.name for column in columns]
    unknown = [name for name in row if name not in names]
    if unknown:
        close = difflib.get_close_matches(unknown[0][:200], names, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"the features are {quoted_names(names)}"
        raise InputError(f"feature {unknown[0][:50]!r} is unknown; {hint}")
    missing = [column.name for column in columns if column.required and column.name not in row]
    if missing:
        raise InputError(f"missing feature{'s' * (len(missing) > 1)} {quoted_names(missing)}")
    return [row.get(name) for name in names]


def _encode(
    predictor: Predictor, predictions: list[Any], probabilities: list[Any] | None, is_list: bool
) -> bytes:
    if predictor.info.target_names is None:
        rows = [{"prediction": value} for value in predictions]
    else:
        named = zip(predictor.names_of(predictions), predictions, strict=True)
        rows = [{"prediction": name, "prediction_index": int(code)} for name, code in named]
    if probabilities is not None:
        classes = predictor.model.class_names
        if any(not isinstance(row, list) or len(row) != len(classes) for row in probabilities):
            raise UnsupportedOperation("this model gives no probability for each class: leave out proba")
        for row, values in zip(rows, probabilities, strict=True):
            row["probabilities"] = dict(zip(classes, values, strict=True))
    return orjson.dumps({"predictions": rows} if is_list else rows[0])


ROUTES = {"/predict": {"POST": predict}}
PROBES: set[str] = set()
