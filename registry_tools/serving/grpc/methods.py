"""The six methods of the protocol over gRPC: a message in, the fields of a message out."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from registry_tools.errors import InputError
from registry_tools.inference.predictor import Predictor
from registry_tools.serving.service import InferenceService
from registry_tools.serving.v2 import inference, tensors
from registry_tools.serving.v2.inference import InferRequest
from registry_tools.serving.v2.tensors import Tensor


@dataclass
class Call:
    """The status and the version of a call for its metrics, and the id for its log."""

    status: int = 200
    version: str = ""
    request_id: str = ""


async def server_live(service: InferenceService, request: Any, call: Call) -> dict[str, Any]:
    """Report that the server runs."""
    return {"live": True}


async def server_ready(service: InferenceService, request: Any, call: Call) -> dict[str, Any]:
    """Report whether clients should send requests here."""
    return {"ready": service.ready}


async def model_ready(service: InferenceService, request: Any, call: Call) -> dict[str, Any]:
    """Report whether a model, or one version of it, is served."""
    _requested_predictor(service, request.name, request.version, call)
    return {"ready": True}


async def server_metadata(service: InferenceService, request: Any, call: Call) -> dict[str, Any]:
    """Describe this server."""
    return inference.server_metadata()


async def model_metadata(service: InferenceService, request: Any, call: Call) -> dict[str, Any]:
    """Return the input and output tensors of the model."""
    return inference.model_metadata(_requested_predictor(service, request.name, request.version, call))


async def model_infer(service: InferenceService, request: Any, call: Call) -> dict[str, Any]:
    """Predict the rows that tensors hold."""
    predictor = _requested_predictor(service, request.model_name, request.model_version, call)
    call.request_id = service.request_id(request.id.encode())
    infer_request = await service.data_plane.run_in_pool(_parse, request)
    _, outputs = await inference.infer(service.data_plane, predictor, infer_request, call.request_id)
    raw = [tensors.to_bytes(tensor) for tensor in outputs]
    return inference.infer_reply(predictor, outputs) | {"id": infer_request.id, "raw_output_contents": raw}


METHODS = {
    "ServerLive": server_live,
    "ServerReady": server_ready,
    "ModelReady": model_ready,
    "ServerMetadata": server_metadata,
    "ModelMetadata": model_metadata,
    "ModelInfer": model_infer,
}


def _requested_predictor(service: InferenceService, name: str, version: str, call: Call) -> Predictor:
    predictor = service.predictor()
    inference.check_model_name(predictor, name, version)
    call.version = predictor.label
    return predictor


def _parse(request: Any) -> InferRequest:
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise InputError(f"{len(raw)} raw_input_contents for {len(request.inputs)} inputs: send one for each")
    inputs = [_tensor(tensor, data) for tensor, data in zip_longest(request.inputs, raw)]
    return InferRequest(inputs, [output.name for output in request.outputs], request.id)


def _tensor(tensor: Any, raw: bytes | None) -> Tensor:
    name, datatype, shape = tensor.name, tensor.datatype, list(tensor.shape)
    if raw is not None:
        if tensor.HasField("contents"):
            raise InputError(f"tensor {tensors.shown(name)}: send contents or raw_input_contents, not both")
        return tensors.from_bytes(name, datatype, shape, raw)
    if datatype == "FP16":
        raise InputError(f"tensor {tensors.shown(name)}: send FP16 in raw_input_contents")
    # The values are in the field of their type; `from_values` checks what it holds.
    values = [value for _, field in tensor.contents.ListFields() for value in field]
    if datatype == tensors.BYTES:
        try:
            values = [value.decode() if isinstance(value, bytes) else value for value in values]
        except UnicodeDecodeError:
            raise InputError(f"tensor {tensors.shown(name)}: a text is not UTF-8") from None
    return tensors.from_values(name, datatype, shape, values)
