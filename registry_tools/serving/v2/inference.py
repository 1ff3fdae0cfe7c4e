"""Requests of the Open Inference Protocol, version 2, over any transport."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any

import numpy as np

from registry_tools.errors import InputError
from registry_tools.inference.input_limits import InputLimits, check_decoded_size, check_row_count
from registry_tools.inference.predictor import Predictor
from registry_tools.serving.engine.data_plane import LARGE_BODY, DataPlane
from registry_tools.serving.errors import RequestRefused
from registry_tools.serving.v2 import model_tensors, rows
from registry_tools.serving.v2.model_tensors import ModelTensors, TensorMetadata
from registry_tools.serving.v2.tensors import DTYPES, Tensor, is_unicode, listed, shown

_LONGEST_ID = 1000  # characters
# The specification allows a short list of platforms; of those, this server loads only ONNX.
_ONNX_PLATFORM = "onnx_onnxv1"


@dataclass(frozen=True)
class InferRequest:
    """The rows of a request, the names of the outputs that it requests, and its id.

    Without a name, all outputs are returned.

    Raises
    ------
    InputError
        If the id cannot be sent back as it is.
    """

    inputs: list[Tensor]
    outputs: list[str]
    id: str = ""

    def __post_init__(self) -> None:
        if len(self.id) > _LONGEST_ID:
            raise InputError(f"the id has {len(self.id)} characters; send at most {_LONGEST_ID}")
        if not is_unicode(self.id):
            raise InputError("the id has half of a surrogate pair; send Unicode text")


async def infer(
    data_plane: DataPlane, predictor: Predictor, infer_request: InferRequest, request_id: str
) -> tuple[int, list[Tensor]]:
    """Return the number of rows and the requested outputs.

    Raises
    ------
    InputError, InputTooLarge, UnsupportedOperation
        If the model cannot take the rows, or has no such output.
    """
    known = model_tensors.model_tensors(predictor)
    wanted = list(dict.fromkeys(infer_request.outputs or known.outputs))
    methods = _methods(known, wanted)
    inputs = infer_request.inputs
    _check_limits(inputs, data_plane.limits)
    count, content = await data_plane.run(is_large(inputs), _decode, inputs, predictor)
    if not count:  # scikit-learn refuses no rows
        return 0, [_empty(known.outputs[name]) for name in wanted]
    found: dict[str, Tensor] = {}
    event_id: str | None = request_id
    for method in methods:
        if predictor.numeric_schema is not None:
            predictions: Any = await data_plane.predict(predictor, method, content, event_id)
        else:
            scored = await data_plane.predict_body(predictor, method, content, "application/json", event_id)
            predictions = scored.predictions
        tensors = model_tensors.output_tensors(method, predictions, known.columns, known.outputs)
        found |= {tensor.name: tensor for tensor in tensors}
        event_id = None
    return count, _selected(found, infer_request.outputs)


def is_large(tensors: Sequence[Tensor]) -> bool:
    """Tell whether tensors are too large to be converted on the event loop."""
    return sum(tensor.values.nbytes for tensor in tensors) > LARGE_BODY


def _check_limits(inputs: Sequence[Tensor], limits: InputLimits) -> None:
    """Refuse too many rows or values before they become lists, which take 8 bytes for a boolean."""
    check_row_count(max((len(tensor.values) for tensor in inputs), default=0), limits)
    check_decoded_size(8 * sum(tensor.values.size for tensor in inputs), limits)


def _decode(inputs: Sequence[Tensor], predictor: Predictor) -> tuple[int, Any]:
    """Return the number of rows, and the rows as the data plane takes them."""
    if predictor.numeric_schema is None:
        return rows.json_from_tensors(inputs, predictor.info)
    matrix = rows.matrix_from_tensors(inputs, predictor.numeric_schema)
    return len(matrix), matrix


def _methods(known: ModelTensors, outputs: Sequence[str]) -> list[str]:
    """Return the methods that return the outputs."""
    for name in outputs:
        if name not in known.methods:
            raise InputError(f"output {shown(name)} is unknown; the outputs are {listed(known.outputs)}")
    return list(dict.fromkeys(known.methods[name] for name in outputs))


def _empty(output: TensorMetadata) -> Tensor:
    shape = [0, *(max(length, 0) for length in output.shape[1:])]
    return Tensor(output.name, np.empty(shape, DTYPES.get(output.datatype, np.dtype(object))))


def _selected(found: dict[str, Tensor], outputs: Sequence[str]) -> list[Tensor]:
    for name in outputs:
        if name not in found:
            raise InputError(f"the model did not return {name!r} for these rows; request another output")
    return [found[name] for name in dict.fromkeys(outputs or found)]


def infer_reply(predictor: Predictor, outputs: Sequence[Tensor]) -> dict[str, Any]:
    """Return the response of the protocol, without the id of the request and the values of the outputs."""
    return {
        "model_name": predictor.artifact.name,
        "model_version": predictor.label,
        "outputs": [{"name": t.name, "shape": t.values.shape, "datatype": t.datatype} for t in outputs],
    }


def check_model_name(predictor: Predictor, name: str, version: str) -> None:
    """Check that a request names the model, and the version, that is served.

    Raises
    ------
    RequestRefused
        404 if it names another.
    """
    if name != predictor.artifact.name:
        raise RequestRefused(404, f"this server serves only the model {predictor.artifact.name!r}")
    if version and version != predictor.label:
        raise RequestRefused(404, f"this server serves only version {predictor.label}")


@cache
def server_metadata() -> dict[str, Any]:
    """Return the server metadata of the protocol."""
    version = metadata.version("registry-pipeline")
    return {"name": "registry-tools", "version": version, "extensions": ["binary_tensor_data"]}


def model_metadata(predictor: Predictor) -> dict[str, Any]:
    """Return the model metadata of the protocol."""
    known = model_tensors.model_tensors(predictor)
    return {
        "name": predictor.artifact.name,
        "versions": [predictor.label],
        "platform": _platform(predictor),
        "inputs": [vars(tensor) for tensor in known.inputs],
        "outputs": [vars(tensor) for tensor in known.outputs.values()],
    }


def _platform(predictor: Predictor) -> str:
    """Return the allowed name of the platform; empty for those without one, such as scikit-learn."""
    flavors = getattr(getattr(predictor.model.estimator, "metadata", None), "flavors", {})
    return _ONNX_PLATFORM if "onnx" in flavors else ""
