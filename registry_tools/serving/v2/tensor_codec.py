"""Rows and predictions of a model as tensors.

Rows come as one tensor a column, of shape (rows,) or (rows, 1) and the column's name, or as one
tensor of all columns, of shape (rows, columns), in the order of the signature and of any name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from registry_tools.data.schema import NUMBERS, Column, quoted_names
from registry_tools.errors import InputError
from registry_tools.inference.decoder import Matrix, NumericSchema, cast_matrix
from registry_tools.serving.v2.tensors import BYTES, Tensor

# The datatype of a column in the model metadata; the other types are texts.
_DATATYPES = {"double": "FP64", "float": "FP32", "long": "INT64", "integer": "INT32"}


@dataclass(frozen=True)
class TensorMetadata:
    """The metadata of a tensor; a length that is not fixed is -1."""

    name: str
    datatype: str
    shape: tuple[int, ...]


def tensors_from_predictions(name: str, predictions: list[Any]) -> list[Tensor]:
    """Return predictions, one a row, as one tensor, or as one a column if they are a table.

    Raises
    ------
    InputError
        If they are no table of values, which no tensor can hold.
    """
    if predictions and all(isinstance(prediction, dict) for prediction in predictions):
        return [
            Tensor(column, _array(column, [prediction[column] for prediction in predictions]))
            for column in predictions[0]
        ]
    return [Tensor(name, _array(name, predictions))]


def _array(name: str, values: list[Any]) -> npt.NDArray[Any]:
    try:
        found = np.array(values)
    except (ValueError, OverflowError):
        raise InputError(f"the predictions of {name!r} are no tensor: use /invocations") from None
    if found.dtype.kind in "biuf":
        return found
    texts = np.empty(len(values), object)
    texts[:] = ["" if value is None else str(value) for value in values]
    return texts


def input_metadata(columns: Sequence[Column] | None) -> list[TensorMetadata]:
    """Return the tensors that a model with these columns takes."""
    if columns is None:
        return [TensorMetadata("input", "FP64", (-1, -1))]
    return [TensorMetadata(c.name, _DATATYPES.get(c.type, BYTES), (-1, 1)) for c in columns]


def matrix_from_tensors(tensors: Sequence[Tensor], numeric_schema: NumericSchema) -> Matrix:
    """Return the rows of a numeric model, in the order and types of its signature.

    Raises
    ------
    InputError
        If a column is missing, unknown, not of numbers, or of another length than the others.
    """
    arrays = _columns(tensors, numeric_schema.names)
    integers = {place for place, _ in numeric_schema.bounds}
    for place, (name, values) in enumerate(zip(numeric_schema.names, arrays, strict=True)):
        if values.dtype.kind not in "iuf":
            raise InputError(f"column {name!r} takes numbers")
        if place in integers and values.dtype.kind == "f" and (values != np.trunc(values)).any():
            raise InputError(f"column {name!r} takes whole numbers")
    matrix = cast_matrix(np.column_stack(arrays), numeric_schema)
    if matrix is None:
        raise InputError("a value is larger than its column holds")
    return matrix


def json_from_tensors(tensors: Sequence[Tensor], columns: Sequence[Column] | None) -> dict[str, Any]:
    """Return the rows of any other model as the JSON of MLflow's protocol.

    Raises
    ------
    InputError
        As `matrix_from_tensors`.
    """
    if columns is None:
        if len(tensors) != 1:
            raise InputError("this model takes one tensor")
        return {"inputs": tensors[0].values.tolist()}
    names = [column.name for column in columns]
    arrays = _columns(tensors, names, {c.name for c in columns if not c.required})
    given = [name for name, values in zip(names, arrays, strict=True) if values is not None]
    lists = [_values(v, c) for v, c in zip(arrays, columns, strict=True) if v is not None]
    return {"dataframe_split": {"columns": given, "data": list(zip(*lists, strict=True))}}


def _values(values: npt.NDArray[Any], column: Column) -> list[Any]:
    found: list[Any] = values.tolist()
    if column.type in NUMBERS or column.required:
        return found
    return [None if value == "" else value for value in found]  # no tensor holds a missing text


def _columns(
    tensors: Sequence[Tensor], names: list[str], optional: set[str] | frozenset[str] = frozenset()
) -> list[Any]:
    """Return the values of each column, shape (rows,); None for an optional one not given."""
    if len(tensors) == 1:
        values = tensors[0].values
        if values.ndim == 2 and values.shape[1] == len(names) and len(values):
            return list(values.T)
    by_name: dict[str, Any] = {tensor.name: tensor.values for tensor in tensors}
    if len(by_name) != len(tensors):
        raise InputError("two tensors have the same name")
    if unknown := sorted(by_name.keys() - set(names)):
        raise InputError(
            f"tensor {unknown[0][:50]!r} is no column: send one tensor a column, "
            f"or one of shape [rows, {len(names)}], of {quoted_names(names)}"
        )
    if missing := [name for name in names if name not in by_name and name not in optional]:
        raise InputError(f"missing column: {quoted_names(missing)}")
    arrays = []
    for name in names:
        given = by_name.get(name)
        if given is not None and given.shape[1:] not in ((), (1,)):
            raise InputError(f"tensor {name!r}: a column has the shape [rows] or [rows, 1]")
        arrays.append(None if given is None else given.ravel())
    lengths = {len(values) for values in arrays if values is not None}
    if len(lengths) != 1 or lengths == {0}:
        raise InputError("the columns are of different lengths, or have no rows")
    return arrays
