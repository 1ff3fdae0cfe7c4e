"""Convert a loaded version to an ONNX model with named inputs and outputs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from registry_tools.data.schema import NUMBERS, Column, TensorSchema
from registry_tools.errors import UnsupportedOperation
from registry_tools.models.loaded_model import LoadedModel, ModelInfo
from registry_tools.models.onnx.estimators import convert_estimator
from registry_tools.models.onnx.graph import Graph
from registry_tools.models.onnx.rows import NotConvertible, Numbers, Prediction, Rows, Texts

ROWS = "rows"  # the input of a model that takes numbers only
PREDICTION, PROBABILITIES, CLASS_NAME = "prediction", "probabilities", "class_name"  # the outputs


def to_onnx(model: LoadedModel) -> Any:
    """Return the ONNX model of a loaded version.

    Its inputs are one float64 tensor `rows` of shape (rows, columns) if all columns are numbers or
    booleans. Else each column is an input with its name, float64 or text of shape (rows, 1).

    Raises
    ------
    UnsupportedOperation
        If a part of the model has no equivalent in ONNX, or the extra `onnx` is not installed.
    """
    info, graph = model.info, Graph()
    title = f"{info.name} version {info.version}"
    try:
        rows = _inputs(graph, info)
        _declare_outputs(graph, convert_estimator(graph, model.estimator, rows), info)
    except NotConvertible as error:
        raise UnsupportedOperation(f"{title} cannot be exported to ONNX: {error}") from error
    metadata = {"name": info.name, "version": str(info.version), "digest": info.digest or ""}
    metadata["columns"] = json.dumps([column.name for column in info.signature or ()])
    return graph.model(info.name, metadata)


def takes_numbers_only(columns: Sequence[Column]) -> bool:
    """Return whether all columns are numbers or booleans."""
    return all(column.type in NUMBERS or column.type == "boolean" for column in columns)


def _inputs(graph: Graph, info: ModelInfo) -> Rows:
    if info.signature is None:
        if isinstance(info.tensor, TensorSchema):
            width = info.tensor.columns
            return Rows((Numbers(graph.declare_input(ROWS, np.float64, width), width),))
        raise NotConvertible("it has no signature with names and types of its columns")
    names = tuple(column.name for column in info.signature)
    if takes_numbers_only(info.signature):
        value = graph.declare_input(ROWS, np.float64, len(names))
        return Rows((Numbers(value, len(names)),), names)
    parts: list[Numbers | Texts] = []
    for column in info.signature:
        if column.type == "string":
            parts.append(Texts(graph.declare_input(column.name, np.object_, 1)))
        elif takes_numbers_only([column]):
            parts.append(Numbers(graph.declare_input(column.name, np.float64, 1), 1))
        else:
            raise NotConvertible(f"column {column.name!r} has the type {column.type}")
    return Rows(tuple(parts), names)


def _declare_outputs(graph: Graph, made: Prediction, info: ModelInfo) -> None:
    classes = made.classes
    if classes is None:
        graph.declare_output(PREDICTION, made.value, np.float64)
        return
    is_text = classes.dtype.kind in "OU"
    dtype = np.object_ if is_text else np.int64
    graph.declare_output(PREDICTION, graph.add("Gather", graph.constant(classes, dtype), made.value), dtype)
    if made.probabilities is not None:
        graph.declare_output(PROBABILITIES, made.probabilities, np.float64, len(classes))
    if info.target_names is not None and not is_text:
        names = np.array([info.target_names[int(code)] for code in classes], dtype=object)
        graph.declare_output(
            CLASS_NAME, graph.add("Gather", graph.constant(names, object), made.value), object
        )
