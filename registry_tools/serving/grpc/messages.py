"""The messages of the Open Inference Protocol over gRPC, by the numbers of their fields.

They are made while the program runs, from the table below, so that no generated file has to fit the
version of protobuf that MLflow brings along.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICE = "inference.GRPCInferenceService"

# name → fields; a field is `number name type`, `*` for repeated; a type in capitals is a message.
_MESSAGES: dict[str, str] = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "1 live bool",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "1 ready bool",
    "ModelReadyRequest": "1 name string, 2 version string",
    "ModelReadyResponse": "1 ready bool",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "1 name string, 2 version string, 3 extensions string*",
    "ModelMetadataRequest": "1 name string, 2 version string",
    "TensorMetadata": "1 name string, 2 datatype string, 3 shape int64*",
    "ModelMetadataResponse": (
        "1 name string, 2 versions string*, 3 platform string, 4 inputs TensorMetadata*, "
        "5 outputs TensorMetadata*"
    ),
    "InferTensorContents": (
        "1 bool_contents bool*, 2 int_contents int32*, 3 int64_contents int64*, "
        "4 uint_contents uint32*, 5 uint64_contents uint64*, 6 fp32_contents float*, "
        "7 fp64_contents double*, 8 bytes_contents bytes*"
    ),
    "InferInputTensor": ("1 name string, 2 datatype string, 3 shape int64*, 5 contents InferTensorContents"),
    "InferRequestedOutputTensor": "1 name string",
    "InferOutputTensor": ("1 name string, 2 datatype string, 3 shape int64*, 5 contents InferTensorContents"),
    "ModelInferRequest": (
        "1 model_name string, 2 model_version string, 3 id string, 5 inputs InferInputTensor*, "
        "6 outputs InferRequestedOutputTensor*, 7 raw_input_contents bytes*"
    ),
    "ModelInferResponse": (
        "1 model_name string, 2 model_version string, 3 id string, 5 outputs InferOutputTensor*, "
        "6 raw_output_contents bytes*"
    ),
}
METHODS = (*("ServerLive", "ServerReady", "ModelReady"), *("ServerMetadata", "ModelMetadata", "ModelInfer"))


@cache
def messages() -> dict[str, Any]:
    """Return the class of each message by its name.

    Their parameters, which this server does not use, are left out: protobuf keeps what
    it does not know.
    """
    file = descriptor_pb2.FileDescriptorProto(
        name="open_inference.proto", package="inference", syntax="proto3"
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for text in filter(None, fields.split(", ")):
            number, field_name, kind = text.split()
            repeated, kind = kind.endswith("*"), kind.rstrip("*")
            field = message.field.add(name=field_name, number=int(number))
            field.label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
            if kind[0].isupper():
                field.type, field.type_name = field.TYPE_MESSAGE, f".inference.{kind}"
            else:
                field.type = getattr(field, f"TYPE_{kind.upper()}")
    # A pool of its own: a client in the same process may have the same names.
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)  # type: ignore[no-untyped-call]
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"inference.{name}"))
        for name in _MESSAGES
    }
