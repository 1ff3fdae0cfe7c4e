"""The simple protocol: `POST /predict {"features": […]}` for one row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from registry_tools.data import schema
from registry_tools.data.schema import NUMBERS, Column, quoted_names, unmet_requirement
from registry_tools.errors import InputError
from registry_tools.inference.predictor import Predictor
from registry_tools.serving.engine.data_plane import LARGE_BODY
from registry_tools.serving.errors import RequestRefused
from registry_tools.serving.rest.messages import Reply, Request, parse_json
from registry_tools.serving.service import InferenceService

_REFUSALS = {
    schema.A_NUMBER: "not numeric",
    schema.FINITE: "not finite",
    schema.TEXT: "no text",
    schema.BOOLEAN: "not true or false",
}


async def predict(service: InferenceService, request: Request) -> Reply:
    """Predict one row."""
    if len(request.body) > LARGE_BODY:
        raise RequestRefused(413, f"a row larger than {LARGE_BODY} bytes: /invocations takes tables")
    predictor = request.assign(service.predictor())
    features = _features(parse_json(request.body), predictor)
    request.rows = 1
    if predictor.numeric_schema is not None:
        predictions = await service.data_plane.predict(
            predictor, "predict", _row(features, predictor), request.id
        )
    else:
        content = _content(features, predictor)
        predictions = await service.data_plane.predict_json(predictor, "predict", content, request.id)
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
        raise RequestRefused(400, f"{len(features)} features given, {len(columns)} are needed: {needed}")
    return features


def _row(features: list[Any], predictor: Predictor) -> np.ndarray[Any, Any]:
    """Return one row as a matrix; stricter than MLflow: no value is converted or filled in."""
    from registry_tools.inference.decoder import cast_matrix

    assert predictor.numeric_schema is not None
    _check_features(features, predictor.info.signature or ())
    for place, _ in predictor.numeric_schema.bounds:
        if features[place] != int(features[place]):
            name = predictor.numeric_schema.names[place]
            raise InputError(f"feature {name!r} is not a whole number")
    row = cast_matrix(np.array([features], dtype=np.float64), predictor.numeric_schema)
    if row is None:
        raise InputError("a feature is larger than its column holds")
    return row


def _check_features(features: list[Any], columns: Sequence[Column]) -> None:
    for column, value in zip(columns, features, strict=True):
        if value is None and not column.required:
            continue
        kind = "double" if column.type in NUMBERS else column.type
        reason = unmet_requirement(value, kind)
        if reason is not None:
            raise InputError(f"feature {column.name!r} is {_REFUSALS[reason]}")


def _content(features: list[Any], predictor: Predictor) -> dict[str, Any]:
    """Return one row as MLflow's protocol has it, for a model that is not of numbers alone."""
    columns = predictor.info.signature
    if columns is None:
        return {"inputs": [features]}
    _check_features(features, columns)
    names = [column.name for column in columns]
    return {"dataframe_split": {"columns": names, "data": [features]}}


def _response(predictor: Predictor, predictions: Any) -> dict[str, Any]:
    if predictor.info.target_names is None:
        return {"prediction": predictions[0]}
    return {"prediction": predictor.names_of(predictions)[0], "prediction_index": int(predictions[0])}


ROUTES = {"/predict": {"POST": predict}}
PROBES: set[str] = set()
