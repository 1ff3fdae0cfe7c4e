"""The Open Inference Protocol over gRPC, on a port of its own; needs the extra `[grpc]`."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from registry_tools.errors import InputError
from registry_tools.serving.errors import RequestRefused, refusal_of
from registry_tools.serving.grpc import methods
from registry_tools.serving.grpc.messages import SERVICE, message_classes
from registry_tools.serving.grpc.methods import Call
from registry_tools.serving.service import InferenceService

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_CANCELLED = 499  # in the metrics; as other servers count a client that leaves
_WITHOUT_KEY = {"ServerLive", "ServerReady"}
_LONGEST_REASON = 1000  # characters; the client's limit for all trailing headers is 8 KiB

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


def create_server(service: InferenceService, port: int, shared: bool) -> grpc.aio.Server:
    """Return a server with the same data plane, limits and keys as over HTTP, bound to a port.

    Parameters
    ----------
    service
        The service of this process.
    port
        The port to bind.
    shared
        Whether other workers of this server bind the port too.

    Raises
    ------
    InputError
        If the port cannot be had.
    """
    settings = service.settings
    server = grpc.aio.server(
        options=[("grpc.so_reuseport", int(shared)), ("grpc.max_receive_message_length", settings.max_body)],
        maximum_concurrent_rpcs=settings.queue,
    )
    handlers = {name: _handler(service, name, *classes) for name, classes in message_classes().items()}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers)])
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    try:
        if settings.ssl_certfile:
            key = Path(settings.ssl_keyfile or settings.ssl_certfile)  # one file may hold both
            pair = (key.read_bytes(), Path(settings.ssl_certfile).read_bytes())
            server.add_secure_port(f"{host}:{port}", grpc.ssl_server_credentials([pair]))
        else:
            server.add_insecure_port(f"{host}:{port}")
    except RuntimeError as error:
        raise InputError(
            f"cannot listen on {settings.host} port {port} for gRPC; name another with --grpc-port"
        ) from error
    return server


def _handler(
    service: InferenceService, name: str, request_class: Any, response_class: Any
) -> grpc.RpcMethodHandler:
    method = methods.METHODS[name]

    async def handle_call(message: bytes, context: Context) -> Any:
        began = time.perf_counter()
        call = Call()
        service.grpc_in_flight += 1
        try:
            service.reserve(len(message))
            if name not in _WITHOUT_KEY:
                _check_key(service, context)
            request = request_class.FromString(message)
            content = await asyncio.wait_for(method(service, request, call), service.settings.timeout)
            if call.request_id:
                context.set_trailing_metadata([("x-request-id", call.request_id)])
            return response_class(**content)
        except DecodeError:
            call.status, reason = 400, f"the message is not a {request_class.DESCRIPTOR.name}"
        except asyncio.TimeoutError:
            call.status, reason = 504, f"no response within {service.settings.timeout:g} s"
        except asyncio.CancelledError:
            call.status = _CANCELLED
            raise
        except Exception as error:  # noqa: BLE001 - the edge
            refused = refusal_of(error, name)
            call.status, reason = refused.status, refused.message
        finally:
            service.grpc_in_flight -= 1
            service.release(len(message))
            seconds = time.perf_counter() - began
            service.metrics.request(f"grpc {name}", call.version, call.status, seconds)
        code = _CODES.get(call.status, grpc.StatusCode.INTERNAL)
        return await context.abort(code, reason[:_LONGEST_REASON])

    return grpc.unary_unary_rpc_method_handler(
        handle_call, response_serializer=response_class.SerializeToString
    )


def _check_key(service: InferenceService, context: Context) -> None:
    sent = {
        name: value.encode() if isinstance(value, str) else value
        for name, value in context.invocation_metadata() or ()
    }
    if not service.keys.allows(sent.get("authorization", b""), sent.get("x-api-key")):
        raise RequestRefused(401, "a key is needed: authorization: Bearer KEY, or x-api-key: KEY")
