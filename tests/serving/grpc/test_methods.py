"""The tensors of a gRPC request are read from its contents or from raw bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from registry_tools.errors import InputError
from registry_tools.serving.grpc.messages import message_classes
from registry_tools.serving.grpc.methods import _parse


def request(datatype: str, contents: dict[str, Any] | None, raw: list[bytes] = []) -> Any:  # noqa: B006
    """Return a request with one tensor of two values."""
    tensor: dict[str, Any] = {"name": "rows", "datatype": datatype, "shape": [2]}
    if contents is not None:
        tensor["contents"] = contents
    request_class, _ = message_classes()["ModelInfer"]
    return request_class(model_name="m", inputs=[tensor], raw_input_contents=raw)


@pytest.mark.parametrize(
    ("datatype", "contents", "raw", "expected"),
    [
        ("FP64", {"fp64_contents": [1, 2]}, [], [1.0, 2.0]),
        ("INT8", {"int_contents": [1, 2]}, [], [1, 2]),
        ("BYTES", {"bytes_contents": [b"a", b"b"]}, [], ["a", "b"]),
        ("FP32", None, [np.array([1, 2], "<f4").tobytes()], [1.0, 2.0]),
        ("BYTES", None, [b"\x01\0\0\0a\x01\0\0\0b"], ["a", "b"]),
    ],
)
def test_a_tensor_is_read_from_contents_or_raw_bytes(
    datatype: str, contents: dict[str, Any] | None, raw: list[bytes], expected: list[Any]
) -> None:
    (tensor,) = _parse(request(datatype, contents, raw)).inputs
    assert (tensor.datatype, tensor.values.tolist()) == (datatype, expected)


@pytest.mark.parametrize(
    ("datatype", "contents", "raw", "reason"),
    [
        ("FP64", {"fp64_contents": [1, 2]}, [bytes(16)], "contents or raw_input_contents, not both"),
        ("FP64", None, [bytes(16), bytes(16)], "2 raw_input_contents for 1 inputs"),
        ("FP64", None, [], "0 values, and its shape is for 2"),
        ("FP64", {"fp64_contents": [1], "fp32_contents": [1, 2]}, [], "3 values, and its shape is for 2"),
        ("INT64", {"fp64_contents": [1, 2]}, [], "not of its datatype INT64"),
        ("INT64", {"bool_contents": [True, True]}, [], "not of its datatype INT64"),
        ("BYTES", {"int_contents": [1, 2]}, [], "not Unicode text"),
        ("BYTES", {"bytes_contents": [b"\xff", b"a"]}, [], "a text is not UTF-8"),
        ("FP16", {"fp32_contents": [1, 2]}, [], "send FP16 in raw_input_contents"),
    ],
)
def test_a_tensor_with_other_contents_than_its_datatype_is_refused(
    datatype: str, contents: dict[str, Any] | None, raw: list[bytes], reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        _parse(request(datatype, contents, raw))
