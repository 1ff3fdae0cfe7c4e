"""The usual bodies of requests, read into a matrix without pandas.

MLflow's own code reads every unusual body (`inference.mlflow_scoring`): a function here returns
None for it and raises nothing, so that both can never disagree on what is wrong with a request.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from registry_tools.data.schema import INTEGER_BOUNDS, NUMBERS, Column

Matrix = npt.NDArray[Any]  # shape (rows, columns of the signature), in its order

_EXACT = 1 << 53  # integers below are themselves as float64
_FITS = {kind: min(high + 1, _EXACT) for kind, (_, high) in INTEGER_BOUNDS.items()}
_RECORDS = ("dataframe_records", "inputs", "instances")


@dataclass(frozen=True)
class NumericSchema:
    """The columns of a numeric signature, ready to be matched with those of a request."""

    names: list[str]
    dtype: np.dtype[Any]  # of the frame that MLflow would make, as one array
    bounds: tuple[tuple[int, int], ...]  # columns of integers, and what they hold
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


def matrix_from_json(content: Any, numeric_schema: NumericSchema) -> Matrix | None:
    """Read the parsed JSON of MLflow's scoring protocol."""
    if len(content) != 1:
        return None
    ((key, rows),) = content.items()
    if key == "dataframe_split":
        return _from_split(rows, numeric_schema)
    if key in _RECORDS:
        return _from_records(rows, numeric_schema)
    return None


def _from_split(split: Any, numeric_schema: NumericSchema) -> Matrix | None:
    if not isinstance(split, dict):
        return None
    names, rows = split.get("columns"), split.get("data")
    if not isinstance(rows, list) or not isinstance(names, list):
        return None
    if len(split) > 2 and not _has_plain_index(split, len(rows)):
        return None
    matrix = _numbers(rows)
    if matrix is None or matrix.shape[1] != len(names):
        return None
    if names != numeric_schema.names:
        positions = _column_positions(names, numeric_schema)
        if positions is None:
            return None
        matrix = matrix[:, positions]
    return cast_matrix(matrix, numeric_schema)


def _has_plain_index(split: dict[str, Any], rows: int) -> bool:
    index = split.get("index")
    known = split.keys() == {"columns", "data", "index"}
    return known and (index is None or (isinstance(index, list) and len(index) == rows))


def _column_positions(names: list[Any], numeric_schema: NumericSchema) -> list[int] | None:
    """Return where each column of the schema stands among the names; extra columns are left out."""
    try:
        where = {name: place for place, name in enumerate(names)}
        return [where[name] for name in numeric_schema.names] if len(where) == len(names) else None
    except (KeyError, TypeError):
        return None


def _from_records(records: Any, numeric_schema: NumericSchema) -> Matrix | None:
    if not isinstance(records, list):
        return None
    names = numeric_schema.names
    try:
        matrix = _numbers([[record[name] for name in names] for record in records])
    except (KeyError, TypeError, IndexError):
        return None
    # All alike, or pandas would fill what is missing.
    if len({len(record) for record in records}) != 1:
        return None
    return cast_matrix(matrix, numeric_schema) if matrix is not None else None


def _numbers(rows: list[Any]) -> Matrix | None:
    """Return a matrix of numbers; None if there is anything else in the rows."""
    try:
        matrix = np.array(rows)
    except (ValueError, OverflowError):
        return None
    if matrix.ndim != 2 or not matrix.size:
        return None
    if matrix.dtype.kind == "O":
        # Missing values count as numbers; MLflow judges all other values.
        if not {type(value) for row in rows for value in row} <= {int, float, type(None)}:
            return None
        try:
            return matrix.astype(np.float64)
        except (OverflowError, TypeError, ValueError):
            return None
    return matrix if matrix.dtype.kind in "if" else None


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


# A table of plain numbers; whatever else stands in a CSV is for MLflow's reader.
_PLAIN = b"0123456789.-+eE,\n"


def matrix_from_csv(body: bytes, numeric_schema: NumericSchema) -> Matrix | None:
    """Read a CSV with a header, and numbers below it.

    Such lines are JSON but for their ends, and read as that: ten times faster than by pandas, and
    without a package that takes 60 MB.
    """
    header, _, rest = body.replace(b"\r\n", b"\n").partition(b"\n")
    names = csv_header(header)
    rest = rest.removesuffix(b"\n")
    if names is None or not rest or rest.translate(None, _PLAIN):
        return None
    positions = _column_positions(names, numeric_schema)
    if positions is None or not _has_even_rows(rest, len(names)):
        return None
    try:
        values = orjson.loads(b"[" + rest.replace(b"\n", b",") + b"]")
    except orjson.JSONDecodeError:
        return None
    width = len(names)
    for place, _ in numeric_schema.bounds:
        if set(map(type, values[positions[place] :: width])) != {int}:
            return None
    try:
        matrix = np.array(values, dtype=np.float64).reshape(-1, width)
    except (OverflowError, ValueError):
        return None
    if not np.isfinite(matrix).all():
        return None
    return cast_matrix(matrix if positions == list(range(width)) else matrix[:, positions], numeric_schema)


def csv_header(line: bytes) -> list[str] | None:
    """Return the names in the first line of a CSV; None if it is none that can be read."""
    try:
        names = next(csv.reader([line.decode("utf-8")], strict=True), None)
    except (UnicodeDecodeError, csv.Error):
        return None
    return names if names and all(names) and not names[0].startswith("\ufeff") else None


def _has_even_rows(lines: bytes, width: int) -> bool:
    """Tell whether every line has as many values as the header has names."""
    characters = np.frombuffer(lines, np.uint8)
    commas = (characters == ord(",")).astype(np.int64).cumsum()
    ends = np.append(commas[characters == ord("\n")], commas[-1])
    return bool((np.diff(ends, prepend=0) == width - 1).all())
