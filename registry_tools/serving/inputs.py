"""The usual bodies of requests, read into a matrix without pandas.

What is unusual in any way is left to MLflow's own reader (`serving.mlflow_reader`): a reader here
returns None and says nothing, so that both can never disagree on what is wrong with a request.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from registry_tools.signature import NUMBERS, Column

Matrix = npt.NDArray[Any]  # shape (rows, columns of the signature), in its order

_EXACT = 1 << 53  # integers below are themselves as float64
_FITS = {"integer": 1 << 31, "long": _EXACT}
_RECORDS = ("dataframe_records", "inputs", "instances")


@dataclass(frozen=True)
class Form:
    """The columns of a numeric signature, ready to be matched with those of a request."""

    names: list[str]
    dtype: np.dtype[Any]  # of the frame that MLflow would make, as one array
    bounds: tuple[tuple[int, int], ...]  # columns of integers, and what they hold
    singles: tuple[int, ...]  # columns of float32 among wider ones

    @classmethod
    def of(cls, columns: Sequence[Column] | None) -> Form | None:
        """Return the form of a signature; None unless all its columns are required numbers."""
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
            singles=tuple(
                i for i, c in enumerate(columns) if c.type == "float" and dtype != np.float32
            ),
        )


def from_content(content: Any, form: Form) -> Matrix | None:
    """Read the parsed JSON of MLflow's scoring protocol."""
    if len(content) != 1:
        return None
    ((key, rows),) = content.items()
    if key == "dataframe_split":
        return _from_split(rows, form)
    if key in _RECORDS:
        return _from_records(rows, form)
    return None


def _from_split(split: Any, form: Form) -> Matrix | None:
    if not isinstance(split, dict) or not split.keys() <= {"columns", "data", "index"}:
        return None
    names, index, rows = split.get("columns"), split.get("index"), split.get("data")
    if not isinstance(rows, list) or (
        index is not None and (not isinstance(index, list) or len(index) != len(rows))
    ):
        return None
    matrix = _numbers(rows)
    if matrix is None or not isinstance(names, list) or matrix.shape[1] != len(names):
        return None
    if names != form.names:
        places = _places(names, form)
        if places is None:
            return None
        matrix = matrix[:, places]
    return typed(matrix, form)


def _places(names: list[Any], form: Form) -> list[int] | None:
    """Return where each column of the form stands among the names; extra columns are left out."""
    try:
        where = {name: place for place, name in enumerate(names)}
        return [where[name] for name in form.names] if len(where) == len(names) else None
    except (KeyError, TypeError):
        return None


def _from_records(records: Any, form: Form) -> Matrix | None:
    if not isinstance(records, list):
        return None
    names = form.names
    try:
        matrix = _numbers([[record[name] for name in names] for record in records])
    except (KeyError, TypeError, IndexError):
        return None
    # All alike, or pandas would fill what is missing.
    if len({len(record) for record in records}) != 1:
        return None
    return typed(matrix, form) if matrix is not None else None


def _numbers(rows: list[Any]) -> Matrix | None:
    """Return a matrix of numbers; None if there is anything else in the rows."""
    try:
        matrix = np.array(rows)
    except (ValueError, OverflowError):
        return None
    if matrix.ndim != 2 or not matrix.size:
        return None
    if matrix.dtype.kind == "O":
        # Holes are numbers as well; whatever is not a number or a hole is for others to judge.
        if not {type(value) for row in rows for value in row} <= {int, float, type(None)}:
            return None
        try:
            return matrix.astype(np.float64)
        except (OverflowError, TypeError, ValueError):
            return None
    return matrix if matrix.dtype.kind in "if" else None


def typed(matrix: Matrix, form: Form) -> Matrix | None:
    """Return numbers in the types of the form, cut and rounded as a cast of pandas does."""
    if matrix.dtype == form.dtype and not form.bounds and not form.singles:
        return matrix
    with np.errstate(invalid="ignore", over="ignore"):
        for column, bound in form.bounds:
            values = matrix[:, column]
            if not (np.abs(values) < bound).all():  # NaN is not
                return None
            if matrix.dtype.kind == "f":
                matrix[:, column] = np.trunc(values)
        for column in form.singles:
            matrix = matrix.astype(np.float64, copy=False)
            matrix[:, column] = matrix[:, column].astype(np.float32)
        return matrix.astype(form.dtype, copy=False)


def from_csv(body: bytes, form: Form) -> Matrix | None:
    """Read a CSV with a header."""
    import pyarrow as pa
    import pyarrow.csv

    try:
        table = pa.csv.read_csv(
            io.BytesIO(body), read_options=pa.csv.ReadOptions(use_threads=False)
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError):
        return None
    return _from_table(table, form)


def _from_table(table: Any, form: Form) -> Matrix | None:
    import pyarrow as pa

    if not table.num_rows or len(set(table.column_names)) != table.num_columns:
        return None
    matrix = np.empty((table.num_rows, len(form.names)), order="C")
    integers = {column for column, _ in form.bounds}
    for place, name in enumerate(form.names):
        if name not in table.column_names:
            return None
        values = table.column(name)
        whole = pa.types.is_integer(values.type)
        if values.null_count or not (whole or pa.types.is_floating(values.type)):
            return None
        if place in integers and not whole:
            return None
        matrix[:, place] = values.to_numpy()
    return typed(matrix, form)
