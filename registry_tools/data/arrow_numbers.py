"""Convert Arrow columns of numbers, or of text with numbers, to a numeric type of a signature."""

from __future__ import annotations

import math
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from registry_tools.data import schema
from registry_tools.data.coerced_batch import CoercedBatch
from registry_tools.data.schema import A_NUMBER, FINITE, NUMBERS, Column


def coerce_numbers(values: pa.Array, column: Column, text: bool, coerced: CoercedBatch) -> npt.NDArray[Any]:
    """Convert a column to numbers, shape (rows,); integers with missing values become floats."""
    if pa.types.is_null(values.type):
        values = values.cast(pa.float64())
    given, target = values, np.dtype(NUMBERS[column.type])
    if text:
        parse = _parse_integers if target.kind == "i" else _parse_floats
        values = parse(values, column, coerced)
    if pa.types.is_decimal(values.type) or values.type == pa.float16():
        values = values.cast(pa.float64(), safe=False)
    if pa.types.is_integer(values.type):
        if target.kind == "i":
            return _coerce_integers(values, given, column, coerced)
        values = values.cast(pa.float64(), safe=False)
    numbers = np.asarray(values)
    if numbers.dtype == target and np.isfinite(numbers).all():
        return numbers
    missing, infinite = np.isnan(numbers), np.isinf(numbers)
    if infinite.any():
        coerced.add_faults(column, given, infinite, FINITE)
    if missing.any():
        coerced.add_missing(column, missing)
    if target.kind == "i":
        whole = _cast_integers(np.where(missing | infinite, 0, numbers), given, column, coerced)
        return numbers.astype(np.float64) if missing.any() and not column.required else whole
    if numbers.dtype == target:
        return numbers
    with np.errstate(over="ignore"):
        narrow = numbers.astype(target)
    coerced.add_faults(column, given, np.isinf(narrow) & ~infinite, FINITE)
    return narrow


def _coerce_integers(
    values: pa.Array, given: pa.Array, column: Column, coerced: CoercedBatch
) -> npt.NDArray[Any]:
    """Convert a column of integers; with missing values, also keep the exact integers for the output."""
    if not values.null_count:
        return _cast_integers(values.to_numpy(), given, column, coerced)
    missing = np.asarray(pc.is_null(values))
    coerced.add_missing(column, missing)
    whole = _cast_integers(pc.fill_null(values, 0).to_numpy(), given, column, coerced)
    if column.required:
        return whole
    coerced.exact[column.name] = pa.array(whole, mask=missing)
    return np.where(missing, np.nan, whole)


def _cast_integers(
    numbers: npt.NDArray[Any], given: pa.Array, column: Column, coerced: CoercedBatch
) -> npt.NDArray[Any]:
    target = np.dtype(NUMBERS[column.type])
    if numbers.dtype == target:
        return numbers
    fits = schema.fits_integer(numbers, column.type)
    if not fits.all():
        coerced.add_faults(column, given, ~fits, schema.whole_number(column.type))
        numbers = np.where(fits, numbers, 0)
    return numbers.astype(target)


def _parse_floats(values: pa.Array, column: Column, coerced: CoercedBatch) -> pa.Array:
    """Parse floats from text: the whole column at once, or value by value if one is not a number."""
    for trim in (False, True):
        trimmed = pc.utf8_trim_whitespace(values) if trim else values
        try:
            return trimmed.cast(pa.float64())
        except pa.ArrowInvalid:
            continue
    found: list[float | None] = []
    unfit = np.zeros(len(values), bool)
    for row, value in enumerate(values.to_pylist()):
        try:
            found.append(None if value is None else _parse_float(value))
        except ValueError:
            found.append(None if not column.required else 0.0)
            unfit[row] = True
    coerced.add_faults(column, values, unfit, A_NUMBER)
    return pa.array(found, pa.float64())


def _parse_float(text: str) -> float:
    return float(text.replace("_", "?"))  # Python would accept `1_000` as well


def _parse_integers(values: pa.Array, column: Column, coerced: CoercedBatch) -> pa.Array:
    """Parse whole numbers from text exactly, even if some rows hold `3.0` or `1e3`.

    Because of such a row Arrow would parse all rows as floats, which round integers beyond 2**53.
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
    for row in np.flatnonzero(odd).tolist():
        number = _parse_integer(text[row].as_py(), column)
        if isinstance(number, str):
            coerced.add_fault(column, values, row, number)
        numbers.append(0 if isinstance(number, str) else number)
    return pc.replace_with_mask(found, odd, pa.array(numbers, pa.int64()))


def _without_point(text: pa.Array) -> pa.Array:
    """Return `3` for `3.0`: pandas writes integers so in a column with a missing value."""
    return pc.replace_substring_regex(text, r"^(-?[0-9]+)\.0*$", r"\1")


def _parse_integer(text: str, column: Column) -> int | str | None:
    """Parse an integer such as `1e3`; return None for `nan`, and the unmet requirement for a fault."""
    try:
        about = _parse_float(text)
    except ValueError:
        return A_NUMBER
    if math.isnan(about):
        return None
    if math.isinf(about):
        return FINITE
    try:
        exact = Decimal(text)
    except InvalidOperation:  # the exponent is too large for a Decimal
        return schema.whole_number(column.type)
    low, high = schema.INTEGER_BOUNDS["long"]
    return int(exact) if low <= exact <= high and exact == int(exact) else schema.whole_number(column.type)
