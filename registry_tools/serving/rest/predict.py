"""The simple protocol: `POST /predict {"features": […]}` for one row."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import orjson

from registry_tools.data.schema import NUMBERS, quoted_names
from registry_tools.errors import InputError
from registry_tools.inference.predictor import Predictor
from registry_tools.serving.engine.data_plane import LARGE_BODY
from registry_tools.serving.errors import RequestRefused
from registry_tools.serving.rest.messages import Reply, Request, parse_json
from registry_tools.serving.service import InferenceService


async def predict(service: InferenceService, request: Request) -> Reply:
    """Answer one row."""
    if len(request.body) > LARGE_BODY:
        raise RequestRefused(
            413, f"a row larger than {LARGE_BODY} bytes: /invocations takes tables"
        )
    predictor = request.assign(service.predictor())
    features = _features(parse_json(request.body), predictor)
    request.rows = 1
    if predictor.numeric_schema is not None:
        predictions = await service.data_plane.predict(
            predictor, "predict", _row(features, predictor), request.id
        )
    else:
        content = _content(features, predictor)
        predictions = await service.data_plane.predict_json(
            predictor, "predict", content, request.id
        )
    return Reply(orjson.dumps(_response(predictor, predictions)))


def _features(content: Any, predictor: Predictor) -> list[Any]:
    if not isinstance(content, dict) or "features" not in content:
        raise RequestRefused(400, 'features are missing: send {"features": [value, …]}')
    features = content["features"]
    if not isinstance(features, list):
        raise RequestRefused(400, 'features is no list of values: send {"features": [value, …]}')
    if any(isinstance(value, list) for value in features):
        raise RequestRefused(400, "features is one row of values: /invocations takes several")
    columns = predictor.info.signature
    if columns is not None and len(features) != len(columns):
        needed = quoted_names(column.name for column in columns)
        raise RequestRefused(
            400, f"{len(features)} features given, {len(columns)} are needed: {needed}"
        )
    return features


def _row(features: list[Any], predictor: Predictor) -> np.ndarray[Any, Any]:
    """Return one row as a matrix; stricter than MLflow: nothing is converted, no hole is filled."""
    from registry_tools.inference.decoder import cast_matrix

    assert predictor.numeric_schema is not None
    for name, value in zip(predictor.numeric_schema.names, features, strict=True):
        if type(value) is not float and type(value) is not int:
            raise InputError(f"feature {name!r} is not numeric")
        if not _is_finite(value):
            raise InputError(f"feature {name!r} is not finite")
    whole = [
        predictor.numeric_schema.names[column] for column, _ in predictor.numeric_schema.bounds
    ]
    for name, value in zip(predictor.numeric_schema.names, features, strict=True):
        if name in whole and value != int(value):
            raise InputError(f"feature {name!r} is not a whole number")
    row = cast_matrix(np.array([features], dtype=np.float64), predictor.numeric_schema)
    if row is None:
        raise InputError("a feature is larger than its column holds")
    return row


def _is_finite(value: float | int) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer of hundreds of digits
        return False


def _content(features: list[Any], predictor: Predictor) -> dict[str, Any]:
    """Return one row as MLflow's protocol has it, for a model that is not of numbers alone."""
    columns = predictor.info.signature
    if columns is None:
        return {"inputs": [features]}
    for column, value in zip(columns, features, strict=True):
        if value is None and not column.required:
            continue
        if column.type in NUMBERS:
            if type(value) is not float and type(value) is not int:
                raise InputError(f"feature {column.name!r} is not numeric")
            if not _is_finite(value):
                raise InputError(f"feature {column.name!r} is not finite")
        elif column.type == "string" and type(value) is not str:
            raise InputError(f"feature {column.name!r} is no text")
        elif column.type == "boolean" and type(value) is not bool:
            raise InputError(f"feature {column.name!r} is not true or false")
    names = [column.name for column in columns]
    return {"dataframe_split": {"columns": names, "data": [features]}}


def _response(predictor: Predictor, predictions: Any) -> dict[str, Any]:
    names = predictor.info.target_names
    if names is None:
        return {"prediction": predictions[0]}
    return {"prediction": names[predictions[0]], "prediction_index": predictions[0]}


ROUTES = {"/predict": {"POST": predict}}
PROBES: set[str] = set()
