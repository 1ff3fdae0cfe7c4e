"""Columns of numbers: from text or from other numbers into the type of the signature."""

from __future__ import annotations

import math
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from registry_tools.batch.validation.checked_columns import Checked, miss, refuse
from registry_tools.data.schema import NUMBERS, Column

_A_NUMBER, _FINITE = "a number", "a finite number"
_LOW, _HIGH = -(1 << 63), 1 << 63


def numbers_of(values: pa.Array, column: Column, text: bool, checked: Checked) -> npt.NDArray[Any]:
    """Return a column of numbers; of whole numbers beside holes floats, as pandas has them."""
    if pa.types.is_null(values.type):
        values = values.cast(pa.float64())
    given, target = values, np.dtype(NUMBERS[column.type])
    if text:
        read = _read_whole if target.kind == "i" else _read
        values = read(values, column, checked)
    if pa.types.is_decimal(values.type) or values.type == pa.float16():
        values = values.cast(pa.float64(), safe=False)
    if pa.types.is_integer(values.type):
        if target.kind == "i":
            return _integers(values, given, column, target, checked)
        values = values.cast(pa.float64(), safe=False)
    numbers = values.to_numpy(zero_copy_only=False)
    missing, infinite = np.isnan(numbers), np.isinf(numbers)
    if infinite.any():
        refuse(column, given, np.flatnonzero(infinite), _FINITE, checked)
    if missing.any():
        miss(column, missing, checked)
    if target.kind == "i":
        whole = _whole(np.where(missing | infinite, 0, numbers), given, column, target, checked)
        # As in `frames`, a column of floats.
        return numbers.astype(np.float64) if missing.any() and not column.required else whole
    if numbers.dtype == target:
        return numbers
    with np.errstate(over="ignore"):
        narrow = numbers.astype(target)
    refuse(column, given, np.flatnonzero(np.isinf(narrow) & ~infinite), _FINITE, checked)
    return narrow


def _integers(
    values: pa.Array, given: pa.Array, column: Column, target: np.dtype[Any], checked: Checked
) -> npt.NDArray[Any]:
    """Return a column of integers; beside holes they are kept as they are for what is written."""
    if not values.null_count:
        return _whole(values.to_numpy(), given, column, target, checked)
    missing = pc.is_null(values).to_numpy(zero_copy_only=False)
    miss(column, missing, checked)
    whole = _whole(pc.fill_null(values, 0).to_numpy(), given, column, target, checked)
    if column.required:
        return whole
    checked.exact[column.name] = pa.array(whole, mask=missing)
    return np.where(missing, np.nan, whole)


def _is_whole(column: Column) -> str:
    return f"a whole number that {column.type} holds"


def _whole(
    numbers: npt.NDArray[Any],
    given: pa.Array,
    column: Column,
    target: np.dtype[Any],
    checked: Checked,
) -> npt.NDArray[Any]:
    if numbers.dtype == target:
        return numbers
    low, high = np.iinfo(target).min, np.iinfo(target).max
    if numbers.dtype.kind == "f":
        fits = (np.trunc(numbers) == numbers) & (numbers >= low) & (numbers < float(high) + 1)
    else:
        fits = (numbers <= high) if numbers.dtype.kind == "u" else (numbers >= low)
        fits &= numbers <= high
    if not fits.all():
        refuse(column, given, np.flatnonzero(~fits), _is_whole(column), checked)
        numbers = np.where(fits, numbers, 0)
    return numbers.astype(target)


def _read(values: pa.Array, column: Column, checked: Checked) -> pa.Array:
    """Read floats from text; the whole column at once unless one of them is none."""
    for trim in (False, True):
        trimmed = pc.utf8_trim_whitespace(values) if trim else values
        try:
            return trimmed.cast(pa.float64())
        except pa.ArrowInvalid:
            continue
    found: list[float | None] = []
    refused = []
    for row, value in enumerate(values.to_pylist()):
        try:
            found.append(None if value is None else _float(value))
        except ValueError:
            found.append(None if not column.required else 0.0)
            refused.append(row)
    refuse(column, values, np.array(refused, np.intp), _A_NUMBER, checked)
    return pa.array(found, pa.float64())


def _float(text: str) -> float:
    return float(text.replace("_", "?"))  # Python would take `1_000` as well


def _read_whole(values: pa.Array, column: Column, checked: Checked) -> pa.Array:
    """Read whole numbers from text, each as it stands, whatever stands in the other rows.

    As floats, which `3.0` or `1e3` in one row would make of all, they are rounded beyond 2**53.
    """
    text = values
    for simpler in (None, pc.utf8_trim_whitespace, _without_point):
        text = text if simpler is None else simpler(text)
        try:
            return text.cast(pa.int64())
        except pa.ArrowInvalid:
            continue
    plain = pc.fill_null(pc.match_substring_regex(text, "^-?[0-9]{1,18}$"), False)
    found = pc.if_else(plain, text, pa.scalar(None, text.type)).cast(pa.int64())
    odd = pc.and_(pc.is_valid(text), pc.invert(plain))
    numbers: list[int | None] = []
    for row in np.flatnonzero(odd.to_numpy(zero_copy_only=False)).tolist():
        number = _odd(text[row].as_py(), column)
        if isinstance(number, str):
            refuse(column, values, np.array([row]), number, checked)
        numbers.append(0 if isinstance(number, str) else number)
    return pc.replace_with_mask(found, odd, pa.array(numbers, pa.int64()))


def _without_point(text: pa.Array) -> pa.Array:
    """Return `3` for `3.0`: what pandas writes of whole numbers that stood beside a hole."""
    return pc.replace_substring_regex(text, r"^(-?[0-9]+)\.0*$", r"\1")


def _odd(text: str, column: Column) -> int | str | None:
    """Return a whole number in an odd form, None for `nan`, or what it would have to be."""
    try:
        about = _float(text)
    except ValueError:
        return _A_NUMBER
    if math.isnan(about):
        return None
    if math.isinf(about):
        return _FINITE
    try:
        exact = Decimal(text)
    except InvalidOperation:  # an exponent beyond all bounds
        return _is_whole(column)
    if _LOW <= exact < _HIGH and exact == int(exact):
        return int(exact)
    return _is_whole(column)
