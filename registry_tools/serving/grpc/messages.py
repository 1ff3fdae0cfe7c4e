"""The messages of the Open Inference Protocol over gRPC.

`open_inference_grpc.proto` is the definition that the protocol's authors publish
(github.com/kserve/open-inference-protocol, specification/protocol, May 2025). `make proto` compiles it
to the descriptor set beside it, so that no generated module has to fit the version of protobuf that
MLflow installs.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICE = "inference.GRPCInferenceService"


@cache
def message_classes() -> dict[str, tuple[Any, Any]]:
    """Return the classes of the request and the response of each method, by its name."""
    compiled = resources.files(__package__) / "open_inference_grpc.binpb"
    # A pool of its own: a client in the same process may have registered the same names.
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(compiled.read_bytes()).file:
        pool.Add(file)  # type: ignore[no-untyped-call]
    return {
        method.name: tuple(map(message_factory.GetMessageClass, (method.input_type, method.output_type)))
        for method in pool.FindServiceByName(SERVICE).methods
    }
