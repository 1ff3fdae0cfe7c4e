"""The Open Inference Protocol over HTTP: JSON, optionally followed by tensors as bytes."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import orjson

from registry_tools.inference.predictor import Predictor
from registry_tools.serving.engine.data_plane import LARGE_BODY
from registry_tools.serving.errors import RequestRefused
from registry_tools.serving.rest import status
from registry_tools.serving.rest.messages import Reply, Request, parse_json
from registry_tools.serving.service import InferenceService
from registry_tools.serving.v2 import inference, tensors
from registry_tools.serving.v2.inference import InferRequest
from registry_tools.serving.v2.tensors import Tensor

Binary = Mapping[str, bool]  # by output, whether to send it as bytes after the JSON
_LENGTH = b"inference-header-content-length"
_MODEL = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?(/ready|/infer)?")


def pattern_of(path: str) -> str:
    """Return the route of a path that names a model; other paths unchanged."""
    found = _MODEL.fullmatch(path)
    return f"/v2/models/{{name}}{found[3] or ''}" if found is not None else path


async def server(service: InferenceService, request: Request) -> Reply:
    """Describe this server."""
    return Reply(orjson.dumps(inference.server_metadata()))


async def live(service: InferenceService, request: Request) -> Reply:
    """Report that the server runs."""
    return Reply(b'{"live":true}')


async def model(service: InferenceService, request: Request) -> Reply:
    """Return the input and output tensors of the model."""
    predictor = _requested_predictor(service, request)
    return Reply(orjson.dumps(inference.model_metadata(predictor)))


async def model_ready(service: InferenceService, request: Request) -> Reply:
    """Report whether a model, or one version of it, is served."""
    predictor = _requested_predictor(service, request)
    return Reply(orjson.dumps({"name": predictor.artifact.name, "ready": True}))


async def infer(service: InferenceService, request: Request) -> Reply:
    """Predict the rows in the tensors of a request."""
    body = request.body
    predictor = _requested_predictor(service, request)
    length = request.headers.get(_LENGTH)
    data_plane = service.data_plane
    infer_request, binary = await data_plane.run(len(body) > LARGE_BODY, _parse, body, length)
    request.rows, outputs = await inference.infer(data_plane, predictor, infer_request, request.id)
    is_large = inference.is_large(outputs)
    return await data_plane.run(is_large, _encode, predictor, infer_request.id, binary, outputs)


def _requested_predictor(service: InferenceService, request: Request) -> Predictor:
    predictor = request.assign(service.predictor())
    found = _MODEL.fullmatch(request.path)
    assert found is not None
    inference.check_model_name(predictor, found[1], found[2] or "")
    return predictor


def _parse(body: bytes, length: bytes | None) -> tuple[InferRequest, Binary]:
    """Parse a request; `length` is the length of its JSON if bytes of tensors follow."""
    head, raw = body, memoryview(b"")
    if length is not None:
        if len(length) > 12 or not length.isdigit() or int(length) > len(body):
            raise RequestRefused(400, "Inference-Header-Content-Length is not a length within the body")
        head, raw = body[: int(length)], memoryview(body)[int(length) :]
    content = parse_json(head)
    if not isinstance(content, dict) or not isinstance(content.get("inputs"), list):
        raise RequestRefused(400, 'inputs are missing: send {"inputs": [{"name", "shape", …}, …]}')
    inputs = []
    for entry in content["inputs"]:
        size = _parameters(entry).get("binary_data_size")
        if size is not None and (type(size) is not int or not 0 <= size <= len(raw)):
            raise RequestRefused(400, "binary_data_size is not a length within the body")
        inputs.append(_tensor(entry, None if size is None else raw[:size]))
        raw = raw[size or 0 :]
    if len(raw):
        raise RequestRefused(400, f"the body has {len(raw)} bytes more than its tensors")
    return _infer_request(content, inputs)


def _infer_request(content: dict[str, Any], inputs: list[Tensor]) -> tuple[InferRequest, Binary]:
    outputs = [] if content.get("outputs") is None else content["outputs"]
    if not isinstance(outputs, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("name"), str) for entry in outputs
    ):
        raise RequestRefused(400, 'outputs is not a list of {"name": …}')
    given = "" if content.get("id") is None else content["id"]
    if not isinstance(given, str):
        raise RequestRefused(400, "the id is not text; send it in quotes")
    by_default = _parameters(content).get("binary_data_output") is True
    binary = {entry["name"]: _parameters(entry).get("binary_data", by_default) is True for entry in outputs}
    return InferRequest(inputs, list(binary), given), defaultdict(lambda: by_default, binary)


def _parameters(entry: Any) -> dict[str, Any]:
    found = entry.get("parameters") if isinstance(entry, dict) else None
    return found if isinstance(found, dict) else {}


def _tensor(entry: Any, raw: memoryview | None) -> Tensor:
    if not isinstance(entry, dict):
        raise RequestRefused(400, "an input is not an object")
    name, datatype, shape = (entry.get(key) for key in ("name", "datatype", "shape"))
    if not (isinstance(name, str) and isinstance(datatype, str) and isinstance(shape, list)):
        raise RequestRefused(400, "an input lacks its name, its datatype or its shape")
    if raw is not None:
        return tensors.from_bytes(name, datatype, shape, raw)
    return tensors.from_values(name, datatype, shape, entry.get("data"))


def _encode(predictor: Predictor, request_id: str, binary: Binary, outputs: list[Tensor]) -> Reply:
    content = inference.infer_reply(predictor, outputs)
    parts = []
    for tensor, entry in zip(outputs, content["outputs"], strict=True):
        if binary[tensor.name]:
            parts.append(tensors.to_bytes(tensor))
            entry["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            entry["data"] = tensor.values.ravel().tolist()
    if request_id:
        content["id"] = request_id
    head = orjson.dumps(content)
    if not parts:
        return Reply(head)
    headers = [(b"content-type", b"application/octet-stream"), (_LENGTH, str(len(head)).encode())]
    return Reply(b"".join([head, *parts]), headers=headers)


ROUTES = {
    "/v2": {"GET": server},
    "/v2/health/live": {"GET": live, "HEAD": live},
    "/v2/health/ready": {"GET": status.ready, "HEAD": status.ready},
    "/v2/models/{name}": {"GET": model},
    "/v2/models/{name}/ready": {"GET": model_ready, "HEAD": model_ready},
    "/v2/models/{name}/infer": {"POST": infer},
}
PROBES = {"/v2/health/live", "/v2/health/ready"}  # a model's `/ready` reveals the version, so it needs a key
