"""Requests of the Open Inference Protocol, version 2, over any transport.

An output is named by the method that returns it, `predict` or `predict_proba`; a request that names
none gets the first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from typing import Any

from registry_tools.errors import InputError
from registry_tools.inference.predictor import METHODS, Predictor
from registry_tools.serving.engine.data_plane import DataPlane
from registry_tools.serving.errors import RequestRefused
from registry_tools.serving.v2 import tensor_codec
from registry_tools.serving.v2.tensor_codec import TensorMetadata
from registry_tools.serving.v2.tensors import Tensor

EXTENSIONS = ["binary_tensor_data"]


@dataclass(frozen=True)
class InferRequest:
    """The rows of a request, and the outputs that it requests."""

    inputs: list[Tensor]
    methods: list[str]
    id: str = ""
    binary: set[str] = field(default_factory=set)  # the outputs that are sent as bytes


async def infer(
    data_plane: DataPlane, predictor: Predictor, infer_request: InferRequest, request_id: str
) -> tuple[int, list[Tensor]]:
    """Return the number of rows and the requested outputs.

    Raises
    ------
    InputError, UnsupportedOperation
        If the model cannot take the rows, or has no such output.
    """
    outputs: list[Tensor] = []
    predictions: list[Any] = []
    event_id: str | None = request_id
    if predictor.numeric_schema is not None:
        matrix = tensor_codec.matrix_from_tensors(infer_request.inputs, predictor.numeric_schema)
        for method in infer_request.methods:
            predictions = await data_plane.predict(predictor, method, matrix, event_id)
            outputs += tensor_codec.tensors_from_predictions(method, predictions)
            event_id = None
    else:
        content = tensor_codec.json_from_tensors(infer_request.inputs, predictor.info.signature)
        for method in infer_request.methods:
            predictions = await data_plane.predict_json(predictor, method, content, event_id)
            outputs += tensor_codec.tensors_from_predictions(method, predictions)
            event_id = None
    return len(predictions), outputs


def check_model_name(predictor: Predictor, name: str, version: str) -> None:
    """Check that a request means the model, and the version, that is served.

    Raises
    ------
    RequestRefused
        404 if it means another.
    """
    if name != predictor.artifact.name:
        raise RequestRefused(404, f"this server serves {predictor.artifact.name!r}, and no other model")
    if version and version != predictor.label:
        raise RequestRefused(404, f"version {predictor.label} is served, and no other")


def methods_for(outputs: list[str]) -> list[str]:
    """Return the methods that give these outputs.

    Raises
    ------
    InputError
        If there is none for one of them.
    """
    for output in outputs:
        if output not in METHODS:
            raise InputError(f"output {output[:50]!r} is unknown: there are {', '.join(METHODS)}")
    return list(dict.fromkeys(outputs)) or ["predict"]


def describe_model(predictor: Predictor) -> tuple[list[TensorMetadata], list[TensorMetadata]]:
    """Return the input tensors of a version, and the output tensors of its example."""
    outputs = []
    for method, predictions in predictor.example_predictions.items():
        for tensor in tensor_codec.tensors_from_predictions(method, predictions):
            shape = (-1, *tensor.values.shape[1:])
            outputs.append(TensorMetadata(tensor.name, tensor.datatype, shape))
    return tensor_codec.input_metadata(predictor.info.signature), outputs


def server_metadata() -> dict[str, Any]:
    """Return the server metadata of the protocol."""
    return {"name": "registry-tools", "version": _own_version(), "extensions": EXTENSIONS}


def model_metadata(predictor: Predictor) -> dict[str, Any]:
    """Return the model metadata of the protocol."""
    inputs, outputs = describe_model(predictor)
    return {
        "name": predictor.artifact.name,
        "versions": [predictor.label],
        "platform": "mlflow_pyfunc" if predictor.numeric_schema is None else "sklearn_skops",
        "inputs": [vars(tensor) for tensor in inputs],
        "outputs": [vars(tensor) for tensor in outputs],
    }


@cache
def _own_version() -> str:
    return metadata.version("registry-pipeline")
