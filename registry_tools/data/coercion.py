"""Convert tables in memory, or one row of text, to the columns and types of a signature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from registry_tools.data import schema
from registry_tools.data.schema import (
    NUMBERS,
    CoercionFault,
    Column,
    TensorSchema,
    UnsupportedTensor,
    quoted_names,
)
from registry_tools.errors import InputError, UnsupportedOperation


def coerce(rows: Any, columns: Sequence[Column] | None) -> pd.DataFrame:
    """Convert rows to the columns and types of a signature.

    Parameters
    ----------
    rows
        A DataFrame or a sequence of mappings, matched by column name in any order, or an array or
        a sequence of sequences of shape (rows, columns), matched by position.
    columns
        The columns of the signature; None keeps names and types unchanged.

    Returns
    -------
    DataFrame
        The columns of the signature, in its order and types.

    Raises
    ------
    InputError
        If columns are missing or occur twice, a row has too few or too many values, or a value does
        not fit its column. The message names the row (from 0), the column and the value. Missing
        values are kept, because a model may handle them.
    """
    table = _to_table(rows, columns)
    if columns is None:
        return table
    doubled = table.columns[table.columns.duplicated()]
    if len(doubled):
        raise InputError(f"column {doubled[0]!r} occurs twice in the rows")
    missing = [column.name for column in columns if column.name not in table]
    needed = [column.name for column in columns if column.required and column.name in missing]
    if needed:
        raise InputError(
            f"missing column{'s' * (len(needed) > 1)} {quoted_names(needed)}; "
            f"the rows have {quoted_names(map(str, table.columns))}"
        )
    series = {c.name: np.nan if c.name in missing else _coerce_column(table[c.name], c) for c in columns}
    return pd.DataFrame(series, index=table.index)


def coerce_tensor(rows: Any, tensor: TensorSchema | UnsupportedTensor) -> npt.NDArray[Any]:
    """Convert rows to the array of a tensor signature, shape (rows, columns).

    Parameters
    ----------
    rows
        As in `coerce`, but always matched by position.
    tensor
        The type of the numbers and the number of columns.

    Raises
    ------
    InputError
        If the number of columns differs, or the type cannot hold a value.
    UnsupportedOperation
        If this package does not support the tensor.
    """
    if isinstance(tensor, UnsupportedTensor):
        raise UnsupportedOperation(f"the model takes a {tensor}: {schema.TENSORS_SUPPORTED}")
    is_array = isinstance(rows, np.ndarray) and rows.ndim == 2
    table = pd.DataFrame(rows) if is_array else _to_table(rows, None)
    if table.shape[1] != tensor.columns:
        raise InputError(
            f"the rows have {table.shape[1]} columns, {tensor.columns} are needed: the model takes a "
            f"{tensor}, its columns by position"
        )
    dtype = np.dtype(tensor.dtype)
    numbers = table.to_numpy()
    if numbers.dtype.kind not in "iuf":
        kind = "double" if dtype.kind == "f" else "long"
        named = ((Column(str(name), kind), values) for name, values in table.items())
        numbers = np.column_stack([_coerce_numbers(values, c, values.isna()) for c, values in named])
    with np.errstate(over="ignore", invalid="ignore"):
        typed = numbers.astype(dtype)
    unfit = np.isinf(typed) if dtype.kind == "f" else typed != numbers
    if unfit.any():
        row, place = np.argwhere(unfit)[0]
        reason = schema.FINITE if dtype.kind == "f" else schema.whole_number(tensor.dtype)
        raise _refusal(CoercionFault(int(row), str(table.columns[place]), reason, numbers[row, place]))
    return typed


def _to_table(rows: Any, columns: Sequence[Column] | None) -> pd.DataFrame:
    if isinstance(rows, pd.DataFrame):
        return rows.reset_index(drop=True)
    if isinstance(rows, np.ndarray):
        if rows.ndim != 2:
            raise InputError(f"expected rows × columns, got an array of shape {rows.shape}")
        rows = rows.tolist()
    if isinstance(rows, (str, bytes, Mapping)) or not isinstance(rows, Sequence):
        raise InputError(f"expected a sequence of rows, got {type(rows).__name__}")
    if all(isinstance(row, Mapping) for row in rows):
        return pd.DataFrame(list(rows))
    width = len(columns) if columns is not None else None
    for index, row in enumerate(rows):
        if isinstance(row, (str, bytes, Mapping)) or not isinstance(row, (Sequence, np.ndarray)):
            raise InputError(
                f"row {index} is {row!r}: expected a sequence of values",
                public=f"row {index} is not a sequence of values",
            )
        if width is None:
            width = len(row)
        if len(row) != width:
            wanted = quoted_names(c.name for c in columns) if columns is not None else "as in row 0"
            raise InputError(f"row {index} has {len(row)} values, {width} are needed: {wanted}")
    names = [c.name for c in columns] if columns is not None else None
    return pd.DataFrame([list(row) for row in rows], columns=names)


def _coerce_column(values: pd.Series, column: Column) -> pd.Series:
    missing = values.isna()
    if column.type in NUMBERS:
        return _coerce_numbers(values, column, missing)
    if column.type not in {"boolean", "string"}:
        return values
    _refuse_values(values, missing, column.name, column.type)
    if column.type == "boolean":
        return values.astype(object).where(~missing, None) if missing.any() else values.astype("bool")
    texts = values.astype(object).where(~missing, np.nan)
    if any(isinstance(value, date) for value in texts):  # models of `pipeline` take dates as text
        return texts.map(lambda value: value.isoformat() if isinstance(value, date) else value).astype(object)
    return texts


def _coerce_numbers(values: pd.Series, column: Column, missing: pd.Series) -> pd.Series:
    # pandas holds integers with missing values as floats.
    is_float = missing.any() and np.dtype(NUMBERS[column.type]).kind == "i"
    kind = "double" if is_float else column.type
    target = np.dtype(NUMBERS[kind])
    if not isinstance(values.dtype, np.dtype) or values.dtype.kind not in "iuf":
        _refuse_values(values, missing, column.name, kind)
        convert = int if target.kind == "i" else float
        return values.map(convert, na_action="ignore").astype(target)
    numbers = values.to_numpy()
    if target.kind == "i":
        unfit, reason = ~schema.fits_integer(numbers, kind), schema.whole_number(kind)
    else:
        with np.errstate(over="ignore"):
            unfit, reason = np.isinf(numbers.astype(target)), schema.FINITE
    if unfit.any():
        row = int(np.argmax(unfit))
        raise _refusal(CoercionFault(row, column.name, reason, numbers[row]))
    return values.astype(target)


def _refuse_values(values: pd.Series, missing: pd.Series, name: str, kind: str) -> None:
    faults = [
        CoercionFault(row, name, reason, value)
        for row, (value, is_missing) in enumerate(zip(values, missing, strict=True))
        if not is_missing and (reason := schema.unmet_requirement(value, kind)) is not None
    ]
    if faults:
        # If one value of a CSV column is a word, pandas reads all its numbers as text: report the word.
        words = (f for f in faults if kind in NUMBERS and not schema.reads_as_number(f.value))
        raise _refusal(next(words, faults[0]))


def _refusal(fault: CoercionFault) -> InputError:
    where = f"column {fault.column!r}, row {fault.row}"
    return InputError(f"{where}: {fault.describe()}", public=f"{where}: {fault.describe(False)}")


def values_from_text(texts: Sequence[str], columns: Sequence[Column] | None) -> list[Any]:
    """Parse the values of one row from text, by the types of its columns.

    Raises
    ------
    InputError
        If the number of values differs, or a value does not fit its column.
    """
    if columns is None:
        columns = [Column(str(place), "double") for place in range(len(texts))]
    if len(texts) != len(columns):
        raise InputError(
            f"{len(texts)} features given, {len(columns)} are needed: {quoted_names(c.name for c in columns)}"
        )
    return [_value_from_text(t.strip(), c) for t, c in zip(texts, columns, strict=True)]


def _value_from_text(text: str, column: Column) -> Any:
    is_boolean = column.type == "boolean"
    if not text or not (is_boolean or column.type in NUMBERS):
        return text or None
    try:
        if is_boolean:
            return {"true": True, "false": False}[text.lower()]
        is_whole = column.type in schema.INTEGER_BOUNDS and "." not in text
        return int(text) if is_whole else float(text)
    except (KeyError, ValueError):
        wanted = schema.BOOLEAN if is_boolean else schema.A_NUMBER
        raise InputError(
            f"feature {column.name!r}: {text!r} is not {wanted}; for a missing value, write nothing "
            "between the commas"
        ) from None
