"""The Open Inference Protocol over gRPC, on a port of its own; needs the extra `[grpc]`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import DecodeError

from registry_tools.errors import InputError, UnsupportedOperation
from registry_tools.inference.predictor import Predictor
from registry_tools.serving.errors import RequestRefused
from registry_tools.serving.grpc.messages import METHODS, SERVICE, messages
from registry_tools.serving.service import InferenceService
from registry_tools.serving.v2 import inference, tensors
from registry_tools.serving.v2.inference import InferRequest
from registry_tools.serving.v2.tensors import Tensor

_log = logging.getLogger(__name__)

_CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_WITHOUT_KEY = {"ServerLive", "ServerReady", "ModelReady"}


@dataclass
class Call:
    """The status and the version of a call, for its metrics."""

    status: int = 200
    version: str = ""


class _KeyInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Checks the key before a message is received."""

    def __init__(self, service: InferenceService) -> None:
        self._service = service

    async def intercept_service(self, continuation: Any, details: grpc.HandlerCallDetails) -> Any:
        given = dict(details.invocation_metadata or ()).get("authorization", b"")
        known = self._service.keys.allows(given.encode() if isinstance(given, str) else given)
        if known or details.method.rpartition("/")[2] in _WITHOUT_KEY:
            return await continuation(details)

        async def refuse(message: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "a key is needed: authorization: Bearer KEY")

        return grpc.unary_unary_rpc_method_handler(refuse)


class GrpcServer:
    """Serves over gRPC with the same data plane, limits and keys as over HTTP."""

    def __init__(self, service: InferenceService, port: int, shared: bool) -> None:
        """Bind the port; `shared` with the other workers of this server.

        Raises
        ------
        InputError
            If the port cannot be had.
        """
        self._service = service
        settings = service.settings
        self._server = grpc.aio.server(
            options=[
                ("grpc.so_reuseport", int(shared)),
                ("grpc.max_receive_message_length", settings.max_body),
            ],
            interceptors=[_KeyInterceptor(service)],
            maximum_concurrent_rpcs=settings.queue,
        )
        methods = {name: self._method(name) for name in METHODS}
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, methods)])
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        try:
            if settings.ssl_certfile:
                key = Path(settings.ssl_keyfile or settings.ssl_certfile)  # one file may hold both
                pair = (key.read_bytes(), Path(settings.ssl_certfile).read_bytes())
                credentials = grpc.ssl_server_credentials([pair])
                self._server.add_secure_port(f"{host}:{port}", credentials)
            else:
                self._server.add_insecure_port(f"{host}:{port}")
        except RuntimeError as error:
            raise InputError(
                f"cannot listen on {settings.host} port {port} for gRPC; name another with --grpc-port"
            ) from error

    async def start(self) -> None:
        """Start to accept calls."""
        await self._server.start()

    async def end(self) -> None:
        """Stop accepting, and finish what is in flight."""
        await self._server.stop(self._service.settings.timeout)

    def _method(self, name: str) -> grpc.RpcMethodHandler:
        known = messages()
        method: Callable[[Any, Call], Awaitable[dict[str, Any]]] = getattr(self, f"_{name}")
        response = known[f"{name}Response"]

        async def handle_call(message: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            began = time.perf_counter()
            call = Call()
            self._service.grpc_in_flight += 1
            try:
                self._service.reserve(len(message))
                request = known[f"{name}Request"].FromString(message)
                timeout = self._service.settings.timeout
                return response(**await asyncio.wait_for(method(request, call), timeout))
            except DecodeError:
                call.status, reason = 400, "this is no message of the protocol"
            except RequestRefused as refused:
                call.status, reason = refused.status, refused.message
            except (InputError, UnsupportedOperation) as error:
                call.status, reason = 400, str(getattr(error, "public", error))
            except asyncio.TimeoutError:
                call.status, reason = 504, "no response in time"
            except Exception:  # noqa: BLE001 - the edge: logged, and hidden from the client
                _log.exception("%s failed", name)
                call.status, reason = 500, "the prediction failed; see the server's log"
            finally:
                self._service.grpc_in_flight -= 1
                self._service.release(len(message))
                seconds = time.perf_counter() - began
                self._service.metrics.request(f"grpc {name}", call.version, call.status, seconds)
            return await context.abort(_CODES.get(call.status, grpc.StatusCode.INTERNAL), reason)

        return grpc.unary_unary_rpc_method_handler(
            handle_call, response_serializer=response.SerializeToString
        )

    def _requested_predictor(self, name: str, version: str, call: Call) -> Predictor:
        predictor = self._service.predictor()
        inference.check_model_name(predictor, name, version)
        call.version = predictor.label
        return predictor

    async def _ServerLive(self, request: Any, call: Call) -> dict[str, Any]:
        return {"live": True}

    async def _ServerReady(self, request: Any, call: Call) -> dict[str, Any]:
        return {"ready": self._service.ready}

    async def _ModelReady(self, request: Any, call: Call) -> dict[str, Any]:
        self._requested_predictor(request.name, request.version, call)
        return {"ready": True}

    async def _ServerMetadata(self, request: Any, call: Call) -> dict[str, Any]:
        return inference.server_metadata()

    async def _ModelMetadata(self, request: Any, call: Call) -> dict[str, Any]:
        return inference.model_metadata(self._requested_predictor(request.name, request.version, call))

    async def _ModelInfer(self, request: Any, call: Call) -> dict[str, Any]:
        predictor = self._requested_predictor(request.model_name, request.model_version, call)
        raw = request.raw_input_contents
        if raw and len(raw) != len(request.inputs):
            raise InputError("raw_input_contents is not of as many tensors as inputs")
        inputs = await self._service.data_plane.run_in_pool(
            lambda: [
                _tensor(tensor, raw[place] if raw else None) for place, tensor in enumerate(request.inputs)
            ]
        )
        methods = inference.methods_for([output.name for output in request.outputs])
        infer_request = InferRequest(inputs, methods, request.id)
        request_id = self._service.request_id(request.id.encode())
        _, outputs = await inference.infer(self._service.data_plane, predictor, infer_request, request_id)
        return {
            "model_name": predictor.artifact.name,
            "model_version": predictor.label,
            "id": request.id or request_id,
            "outputs": [{"name": t.name, "datatype": t.datatype, "shape": t.values.shape} for t in outputs],
            "raw_output_contents": [tensors.to_bytes(tensor) for tensor in outputs],
        }


def _tensor(tensor: Any, raw: bytes | None) -> Tensor:
    shape = list(tensor.shape)
    if raw is not None:
        return tensors.from_bytes(tensor.name, tensor.datatype, shape, raw)
    tensors.checked_shape(tensor.name, tensor.datatype, shape)
    contents = _CONTENTS.get(tensor.datatype)
    if contents is None:
        raise InputError(f"tensor {tensor.name!r}: {tensor.datatype} is sent as raw bytes only")
    values = list(getattr(tensor.contents, contents))
    if tensor.datatype == "BYTES":
        try:
            values = [value.decode("utf-8") for value in values]
        except UnicodeDecodeError:
            raise InputError(f"tensor {tensor.name!r}: a text is not UTF-8") from None
    elif tensor.datatype == "FP32":
        values = [float(value) for value in np.asarray(values, np.float32)]
    return tensors.from_values(tensor.name, tensor.datatype, shape, values)
