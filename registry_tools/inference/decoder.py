"""The fast path for requests of plain numbers: JSON decoded into one matrix.

For every other body a function here returns None, and `inference.mlflow_scoring` passes it to MLflow's
own code, which alone decides whether it is valid.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from registry_tools.data.schema import INTEGER_BOUNDS, NUMBERS, Column
from registry_tools.errors import InputError

Matrix = npt.NDArray[Any]  # shape (rows, columns of the signature), in its order
METHODS = ("predict", "predict_proba")
FORMATS = ("dataframe_split", "dataframe_records", "instances", "inputs")  # of MLflow's protocol

_EXACT = 1 << 53  # integers below are themselves as float64
_FITS = {kind: min(high + 1, _EXACT) for kind, (_, high) in INTEGER_BOUNDS.items()}
_METHOD_PARAMS = ({}, *({"method": method} for method in METHODS))


@dataclass(frozen=True)
class NumericSchema:
    """The columns of a numeric signature, ready to be matched with those of a request."""

    names: list[str]
    dtype: np.dtype[Any]  # of the frame that MLflow would make, as one array
    bounds: tuple[tuple[int, int], ...]  # columns of integers, and their bounds
    singles: tuple[int, ...]  # columns of float32 among wider ones

    @classmethod
    def of(cls, columns: Sequence[Column] | None) -> NumericSchema | None:
        """Return the schema of a signature; None unless all its columns are required numbers."""
        if columns is None or not all(c.type in NUMBERS and c.required for c in columns):
            return None
        names = [column.name for column in columns]
        if len(set(names)) != len(names):
            return None
        dtype = np.result_type(*(NUMBERS[column.type] for column in columns))
        return cls(
            names=names,
            dtype=dtype,
            bounds=tuple((i, _FITS[c.type]) for i, c in enumerate(columns) if c.type in _FITS),
            singles=tuple(i for i, c in enumerate(columns) if c.type == "float" and dtype != np.float32),
        )


def decode_json(
    body: bytes, numeric_schema: NumericSchema | None, declared_params: frozenset[str]
) -> tuple[Matrix | None, str]:
    """Decode a JSON body of MLflow's scoring protocol.

    Parameters
    ----------
    body
        The body of the request.
    numeric_schema
        The columns of the model; None if they are not all numbers.
    declared_params
        The parameters in the model's signature.

    Returns
    -------
    matrix
        The rows, or None if MLflow's code has to decode the body.
    method
        The method of the model that the request asks for, if the rows are not None.

    Raises
    ------
    InputError
        If the body is not JSON.
    """
    method = "predict"
    content = parse_json(body) if numeric_schema is not None else None
    if numeric_schema is None or type(content) is not dict:
        return None, method
    strings = body.count(b'"') // 2  # more than the keys and the names of columns: there is text in the rows
    if "params" in content:
        params = content.pop("params") or {}
        if declared_params or params not in _METHOD_PARAMS:
            return None, method
        strings -= 1 + 2 * len(params)
        method = params.get("method", method)
    if len(content) != 1:
        return None, method
    key, rows = content.popitem()
    decode = _DECODERS.get(key)
    matrix = decode(rows, strings - 1, numeric_schema) if decode is not None else None
    return cast_matrix(matrix, numeric_schema) if matrix is not None else None, method


def parse_json(body: bytes, like_mlflow: bool = False) -> Any:
    """Return the content of a JSON body.

    Parameters
    ----------
    body
        The body of the request.
    like_mlflow
        Use Python's parser, as MLflow does: it keeps integers of any size. Otherwise it only reads
        what orjson refuses, such as NaN.

    Raises
    ------
    InputError
        If it is not JSON; the message names the place and no value.
    """
    if not like_mlflow:
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError:  # `suppress` would cost a sixth of the decoding of a row
            pass
    try:
        return json.loads(body)
    except json.JSONDecodeError as error:
        reason = f"{error.msg} at line {error.lineno}, column {error.colno}"
    except UnicodeDecodeError:
        reason = "it is not UTF-8"
    except (ValueError, RecursionError):
        reason = "a number or the nesting is too long"
    raise InputError(f"the body is not JSON: {reason}")


def _from_split(split: Any, strings: int, numeric_schema: NumericSchema) -> Matrix | None:
    if not isinstance(split, dict):
        return None
    names, rows = split.get("columns"), split.get("data")
    if not isinstance(rows, list) or not isinstance(names, list) or strings != len(split) + len(names):
        return None
    if len(split) > 2:
        index = split.get("index", ())
        if len(split) > 3 or not (index is None or (isinstance(index, list) and len(index) == len(rows))):
            return None
    positions = None
    if names != numeric_schema.names:
        where = {name: place for place, name in enumerate(names) if isinstance(name, str)}
        if len(where) != len(names) or not where.keys() >= set(numeric_schema.names):
            return None
        positions = [where[name] for name in numeric_schema.names]
    matrix = _numbers(rows)
    if matrix is None or matrix.shape[1] != len(names):
        return None
    return matrix if positions is None else matrix[:, positions]


def _from_records(records: Any, strings: int, numeric_schema: NumericSchema) -> Matrix | None:
    names = numeric_schema.names
    try:
        # All have the same keys, or pandas would fill missing values.
        if strings != len(records) * len(records[0]) or len(set(map(len, records))) != 1:
            return None
        return _numbers([[record[name] for name in names] for record in records])
    except (KeyError, TypeError, IndexError):
        return None


_DECODERS = {**dict.fromkeys(FORMATS, _from_records), "dataframe_split": _from_split}


def _numbers(rows: list[Any]) -> Matrix | None:
    """Return a matrix of numbers; None if there is anything else in the rows.

    There must be no text in them: NumPy would give each value the length of the longest.
    """
    try:
        matrix = np.array(rows)
        if matrix.dtype.kind == "O" and {type(v) for row in rows for v in row} <= {int, float, type(None)}:
            matrix = matrix.astype(np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    return matrix if matrix.dtype.kind in "if" and matrix.ndim == 2 and matrix.size else None


def cast_matrix(matrix: Matrix, numeric_schema: NumericSchema) -> Matrix | None:
    """Return numbers in the types of the schema, cut and rounded as a cast of pandas does."""
    if matrix.dtype == numeric_schema.dtype and not numeric_schema.bounds and not numeric_schema.singles:
        return matrix
    with np.errstate(invalid="ignore", over="ignore"):
        for column, bound in numeric_schema.bounds:
            values = matrix[:, column]
            if not ((values > -bound) & (values < bound)).all():  # NaN is neither
                return None
            if matrix.dtype.kind == "f":
                matrix[:, column] = np.trunc(values)
        for column in numeric_schema.singles:
            matrix = matrix.astype(np.float64, copy=False)
            matrix[:, column] = matrix[:, column].astype(np.float32)
        return matrix.astype(numeric_schema.dtype, copy=False)
