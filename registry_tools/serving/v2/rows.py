"""The rows of a model in the tensors of a request.

Rows come as one tensor for each column, of shape (rows,) or (rows, 1) and with the column's name, or as
one tensor of all columns, of shape (rows, columns), in the order of the signature and with any name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from registry_tools.data.schema import NUMBERS, Column
from registry_tools.errors import InputError
from registry_tools.inference.decoder import Matrix, NumericSchema, cast_matrix
from registry_tools.models.loaded_model import ModelInfo
from registry_tools.serving.v2.tensors import Tensor, listed, shown


def matrix_from_tensors(tensors: Sequence[Tensor], numeric_schema: NumericSchema) -> Matrix:
    """Return the rows of a numeric model, in the order and types of its signature.

    Raises
    ------
    InputError
        If a column is missing, unknown, not numeric, or of another length than the others.
    """
    arrays = _columns(tensors, numeric_schema.names, set())
    integers = {numeric_schema.names[place] for place, _ in numeric_schema.bounds}
    for name, values in arrays.items():
        if values.dtype.kind not in "iuf":
            raise InputError(f"column {name!r} takes numbers")
        if name in integers and values.dtype.kind == "f" and (values != np.trunc(values)).any():
            raise InputError(f"column {name!r} takes whole numbers")
    matrix = cast_matrix(np.column_stack(list(arrays.values())), numeric_schema)
    if matrix is None:
        raise InputError("a value is larger than its column holds")
    return matrix


def json_from_tensors(tensors: Sequence[Tensor], info: ModelInfo) -> tuple[int, dict[str, Any]]:
    """Return the number of rows of any other model, and the rows as the JSON of MLflow's protocol.

    Raises
    ------
    InputError
        As `matrix_from_tensors`.
    """
    columns = info.signature
    if columns is None:
        return _json_without_columns(tensors, named=any(entry.get("name") for entry in info.inputs))
    by_name = {column.name: column for column in columns}
    arrays = _columns(tensors, list(by_name), {c.name for c in columns if not c.required})
    lists = [_values(values, by_name[name]) for name, values in arrays.items()]
    data = list(map(list, zip(*lists, strict=True)))
    return len(data), {"dataframe_split": {"columns": list(arrays), "data": data}}


def _json_without_columns(tensors: Sequence[Tensor], named: bool) -> tuple[int, dict[str, Any]]:
    if len(_by_name(tensors)) != 1 and not named:
        raise InputError(f"this model takes one tensor, and the request has {len(tensors)}")
    if len({len(tensor.values) for tensor in tensors}) != 1:
        raise InputError("the tensors are missing, or have different numbers of rows")
    lists = {tensor.name: tensor.values.tolist() for tensor in tensors}
    return len(tensors[0].values), {"inputs": lists if named else lists[tensors[0].name]}


def _values(values: npt.NDArray[Any], column: Column) -> list[Any]:
    found: list[Any] = values.tolist()
    if column.type in NUMBERS or column.required:
        return found
    return [None if value == "" else value for value in found]  # no tensor holds a missing text


def _by_name(tensors: Sequence[Tensor]) -> dict[str, Any]:
    found = {tensor.name: tensor.values for tensor in tensors}
    if len(found) != len(tensors):
        raise InputError("two tensors have the same name")
    return found


def _columns(tensors: Sequence[Tensor], names: list[str], optional: set[str]) -> dict[str, npt.NDArray[Any]]:
    """Return the values of each column, shape (rows,), without the optional ones that are not given."""
    if len(tensors) == 1:
        values = tensors[0].values
        if values.ndim == 2 and values.shape[1] == len(names):
            return dict(zip(names, values.T, strict=True))
    by_name = _by_name(tensors)
    if unknown := sorted(by_name.keys() - set(names)):
        raise InputError(
            f"tensor {shown(unknown[0])} is not a column: send one tensor for each column, or one of "
            f"shape [rows, {len(names)}]; {listed(names)}"
        )
    if missing := [name for name in names if name not in by_name and name not in optional]:
        raise InputError(f"missing column: {listed(missing)}")
    for name, values in by_name.items():
        if values.shape[1:] not in ((), (1,)):
            raise InputError(f"tensor {shown(name)}: a column has the shape [rows] or [rows, 1]")
    arrays = {name: by_name[name].ravel() for name in names if name in by_name}
    if len(set(map(len, arrays.values()))) != 1:
        raise InputError("the columns are missing, or have different numbers of rows")
    return arrays
