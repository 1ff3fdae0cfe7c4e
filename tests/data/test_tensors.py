"""Models that take an array instead of named columns: their schema, and rows converted to it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.models import ModelSignature, infer_signature
from mlflow.types.schema import ColSpec, Schema, TensorSpec

from registry_tools.data.coercion import coerce_tensor
from registry_tools.data.schema import Column, TensorSchema, UnsupportedTensor, tensor_fault, tensor_of
from registry_tools.errors import InputError, UnsupportedOperation

FOUR = TensorSchema("float64", 4)
COLUMNS = (Column("x", "double"),)


def inputs_of(*tensors: TensorSpec | ColSpec) -> list[dict[str, Any]]:
    """Return the inputs of a signature as an `MLmodel` file has them."""
    content = ModelSignature(Schema(list(tensors))).to_dict()["inputs"]
    return list(json.loads(content))


def spec(shape: tuple[int, ...], dtype: str = "float64", name: str | None = None) -> TensorSpec:
    return TensorSpec(np.dtype(dtype), shape, name=name)


def test_the_signature_of_an_array_is_one_tensor() -> None:
    signature = infer_signature(np.zeros((9, 4), np.float32)).to_dict()["inputs"]
    assert tensor_of(json.loads(signature)) == TensorSchema("float32", 4)
    assert tensor_of(inputs_of(ColSpec("double", "x"))) is None
    assert tensor_of(None) is None


@pytest.mark.parametrize(
    ("tensors", "text"),
    [
        ([spec((-1, 28, 28))], "float64 (-1, 28, 28)"),
        ([spec((-1,))], "float64 (-1,)"),
        ([spec((-1, -1))], "float64 (-1, -1)"),
        ([spec((8, 4))], "float64 (8, 4)"),
        ([spec((-1, 4), "bool")], "bool (-1, 4)"),
        ([spec((-1, 4), name="rows")], "rows float64 (-1, 4)"),
        ([spec((-1, 4), name="a"), spec((-1, 2), "int64", name="b")], "a float64 (-1, 4), b int64 (-1, 2)"),
    ],
)
def test_other_tensors_are_named_and_refused(tensors: list[TensorSpec], text: str) -> None:
    tensor = tensor_of(inputs_of(*tensors))
    assert tensor == UnsupportedTensor(text)
    with pytest.raises(UnsupportedOperation, match=r"the model takes a tensor .*: only one tensor of"):
        coerce_tensor([[1.0] * 4], tensor)
    assert f"the champion takes a tensor {text}: only one" in str(tensor_fault(COLUMNS, tensor))


@pytest.mark.parametrize(
    "rows",
    [
        np.array([[1, 2, 3, 4]]),
        [[1, 2.0, 3, 4]],
        [{"d": 1, "c": 2, "b": 3, "a": 4}],
        pd.DataFrame([[1, 2, 3, 4]], columns=["x", "x", "y", "z"]),
        pd.DataFrame([[1, 2, 3, 4]], dtype="Float64"),
        pd.DataFrame([[1, 2, 3, 4]], dtype=object),
    ],
)
def test_rows_are_matched_by_position(rows: Any) -> None:
    array = coerce_tensor(rows, FOUR)
    assert array.dtype == np.float64
    assert array.tolist() == [[1.0, 2.0, 3.0, 4.0]]


@pytest.mark.parametrize("dtype", ["float16", "float32", "int8", "int32", "int64", "uint8", "uint64"])
def test_an_array_has_the_type_of_the_tensor(dtype: str) -> None:
    array = coerce_tensor(pd.DataFrame({"a": [1, 2], "b": [3.0, 4.0]}), TensorSchema(dtype, 2))
    assert (str(array.dtype), array.tolist()) == (dtype, [[1, 3], [2, 4]])


def test_a_missing_value_is_left_to_a_model_that_takes_floats() -> None:
    assert np.isnan(coerce_tensor([[1, None]], TensorSchema("float32", 2))).tolist() == [[False, True]]


@pytest.mark.parametrize(
    ("rows", "tensor", "reason"),
    [
        (
            [[1, 2, 3]],
            FOUR,
            r"the rows have 3 columns, 4 are needed: the model takes a tensor float64 \(-1, 4\)",
        ),
        (np.zeros((2, 5)), FOUR, "the rows have 5 columns, 4 are needed"),
        (np.zeros((2, 4, 1)), FOUR, r"expected rows × columns, got an array of shape \(2, 4, 1\)"),
        ([[1, 2, 3, 4], [1, 2, 3]], FOUR, "row 1 has 3 values, 4 are needed"),
        (
            pd.DataFrame({"a": ["1", "x"]}),
            TensorSchema("float64", 1),
            "column 'a', row 1: 'x' is not a number",
        ),
        (pd.DataFrame({"a": [True]}), TensorSchema("float64", 1), "column 'a', row 0: True is not a number"),
        ([[np.inf]], TensorSchema("float64", 1), "column '0', row 0: inf is not a finite number"),
        ([[1e39]], TensorSchema("float32", 1), r"column '0', row 0: 1e\+39 is not a finite number"),
        ([[1], [2.5]], TensorSchema("int64", 1), "row 1: 2.5 is not a whole number that int64 holds"),
        ([[300]], TensorSchema("uint8", 1), "row 0: 300 is not a whole number that uint8 holds"),
        ([[-1]], TensorSchema("uint64", 1), "row 0: -1 is not a whole number that uint64 holds"),
        ([[None]], TensorSchema("int64", 1), "row 0: nan is not a whole number that int64 holds"),
    ],
)
def test_what_does_not_fit_is_named(rows: Any, tensor: TensorSchema, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        coerce_tensor(rows, tensor)


def test_a_tensor_takes_what_clients_of_the_same_or_a_narrower_type_send() -> None:
    assert tensor_fault(FOUR, None) is None
    assert tensor_fault(FOUR, FOUR) is None
    assert tensor_fault(FOUR, TensorSchema("float32", 4)) is None
    assert tensor_fault(FOUR, TensorSchema("int64", 4)) is None


@pytest.mark.parametrize(
    ("candidate", "champion", "fault"),
    [
        (
            TensorSchema("float32", 4),
            FOUR,
            "takes a tensor float32 (-1, 4), clients send a tensor float64 (-1, 4)",
        ),
        (
            TensorSchema("float64", 3),
            FOUR,
            "takes a tensor float64 (-1, 3), clients send a tensor float64 (-1, 4)",
        ),
        (FOUR, COLUMNS, "takes a tensor float64 (-1, 4), clients send a table with named columns"),
        (COLUMNS, FOUR, "takes a table with named columns, clients send a tensor float64 (-1, 4)"),
    ],
)
def test_a_tensor_is_compared_with_a_tensor_alone(candidate: Any, champion: Any, fault: str) -> None:
    assert tensor_fault(candidate, champion) == f"it {fault}"
