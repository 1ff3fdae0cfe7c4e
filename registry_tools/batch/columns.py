"""Columns of a batch brought into the types of the signature, and the rows where that fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from registry_tools.errors import InputError
from registry_tools.signature import NUMBERS, Column, names_in_words

# What pandas takes for a missing value in a CSV, and with it the training.
_MISSING = [
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
    *("<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
]
_LONGEST_SHOWN = 60


@dataclass
class Checked:
    """The columns of the signature in its types, and why some rows are not."""

    rows: int
    arrays: dict[str, npt.NDArray[Any]]  # numbers, booleans, or objects; holes are NaN or None
    bad: dict[int, str] = field(default_factory=dict)  # by row of the batch

    def good(self) -> npt.NDArray[np.bool_]:
        """Return which rows can be scored, shape (rows,)."""
        good = np.ones(self.rows, bool)
        good[list(self.bad)] = False
        return good

    def without_bad(self) -> Checked:
        """Return the rows that can be scored."""
        if not self.bad:
            return self
        good = self.good()
        return Checked(int(good.sum()), {name: a[good] for name, a in self.arrays.items()})


def check_schema(schema: pa.Schema, columns: Sequence[Column], where: str, text: bool) -> None:
    """Compare the columns of a file with the signature.

    Parameters
    ----------
    schema, columns
        The columns of the file, of a CSV all text; and those of the signature.
    where
        Names the file in errors.
    text
        Whether the values are text that is still to be read.

    Raises
    ------
    InputError
        If a required column is missing or stands twice, or one has a type that the model cannot
        take.
    """
    names = list(schema.names)
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise InputError(f"{where}: column {doubled[0]!r} stands twice")
    missing = [c.name for c in columns if c.required and c.name not in names]
    if missing:
        raise InputError(
            f"{where}: missing column{'s' * (len(missing) > 1)} {names_in_words(missing)}; "
            f"the file has {names_in_words(names)}"
        )
    for column in columns if not text else ():
        if column.name in names and not _fits(schema.field(column.name).type, column.type):
            raise InputError(
                f"{where}: column {column.name!r} holds {schema.field(column.name).type}, and the "
                f"model takes {column.type}"
            )


def _fits(given: pa.DataType, wanted: str) -> bool:
    types = pa.types
    if types.is_dictionary(given):
        given = given.value_type
    if types.is_null(given):
        return True
    if wanted in NUMBERS:
        return types.is_integer(given) or types.is_floating(given) or types.is_decimal(given)
    if wanted == "boolean":
        return types.is_boolean(given)
    if wanted == "string":
        return types.is_string(given) or types.is_large_string(given) or given == pa.string_view()
    if wanted == "datetime":
        return types.is_temporal(given)
    return True


def check(batch: pa.RecordBatch, columns: Sequence[Column], text: bool) -> Checked:
    """Bring the columns of a signature into its types; a row is bad by its first column that is.

    Parameters
    ----------
    batch, columns
        Rows, and the columns of the signature; one that is optional may be missing.
    text
        Whether the values are the text of a CSV.
    """
    checked = Checked(batch.num_rows, {})
    for column in columns:
        if column.name not in batch.schema.names:
            checked.arrays[column.name] = _holes(batch.num_rows, column)
            continue
        values = batch.column(column.name)
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        if text:
            values = _blanked(values)
        checked.arrays[column.name] = _READERS.get(column.type, _others)(
            values, column, text, checked.bad
        )
    return checked


def _holes(rows: int, column: Column) -> npt.NDArray[Any]:
    if column.type in NUMBERS:
        return np.full(rows, np.nan)
    return np.full(rows, None if column.type == "boolean" else np.nan, object)


def _blanked(values: pa.Array) -> pa.Array:
    """Return text with what counts as missing left out."""
    missing = pc.is_in(values, value_set=pa.array(_MISSING))
    return pc.if_else(missing, None, values) if pc.any(missing).as_py() else values


def _missing(column: Column, holes: npt.NDArray[np.bool_], bad: dict[int, str]) -> None:
    if column.required:
        for row in np.flatnonzero(holes).tolist():
            bad.setdefault(row, f"column {column.name!r}: missing value, and the model needs one")


def _refuse(
    column: Column, values: pa.Array, rows: npt.NDArray[np.intp], wanted: str, bad: dict[int, str]
) -> None:
    for row in rows.tolist():
        value = values[row].as_py()
        shown = repr(float(value) if isinstance(value, Decimal) else value)
        if len(shown) > _LONGEST_SHOWN:
            shown = f"{shown[:_LONGEST_SHOWN]}…"
        bad.setdefault(row, f"column {column.name!r}: {shown} is not {wanted}")


def _numbers(values: pa.Array, column: Column, text: bool, bad: dict[int, str]) -> npt.NDArray[Any]:
    if pa.types.is_null(values.type):
        values = values.cast(pa.float64())
    given, target = values, np.dtype(NUMBERS[column.type])
    if text:
        values = _read(values, column, target, bad)
    if pa.types.is_decimal(values.type) or values.type == pa.float16():
        values = values.cast(pa.float64(), safe=False)
    holes = values.null_count > 0
    if pa.types.is_integer(values.type):
        if target.kind == "i" and not holes:
            return _whole(values.to_numpy(), given, column, target, bad)
        numbers = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    else:
        numbers = values.to_numpy(zero_copy_only=False)
    missing, infinite = np.isnan(numbers), np.isinf(numbers)
    if infinite.any():
        _refuse(column, given, np.flatnonzero(infinite), "a finite number", bad)
    if missing.any():
        _missing(column, missing, bad)
    if target.kind == "i":
        if missing.any() and not column.required:  # as in `frames`, a column of floats
            fits = missing | infinite | (np.trunc(numbers) == numbers)
            _refuse(column, given, np.flatnonzero(~fits), _is_whole(column), bad)
            return numbers.astype(np.float64)
        return _whole(np.where(missing | infinite, 0, numbers), given, column, target, bad)
    if numbers.dtype == target:
        return numbers
    with np.errstate(over="ignore"):
        narrow = numbers.astype(target)
    _refuse(column, given, np.flatnonzero(np.isinf(narrow) & ~infinite), "a finite number", bad)
    return narrow


def _is_whole(column: Column) -> str:
    return f"a whole number that {column.type} holds"


def _whole(
    numbers: npt.NDArray[Any],
    given: pa.Array,
    column: Column,
    target: np.dtype[Any],
    bad: dict[int, str],
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
        _refuse(column, given, np.flatnonzero(~fits), _is_whole(column), bad)
        numbers = np.where(fits, numbers, 0)
    return numbers.astype(target)


def _read(values: pa.Array, column: Column, target: np.dtype[Any], bad: dict[int, str]) -> pa.Array:
    """Read numbers from text; the whole column at once unless one of them is none."""
    wanted = (pa.int64(), pa.float64()) if target.kind == "i" else (pa.float64(),)
    for trim in (False, True):
        trimmed = pc.utf8_trim_whitespace(values) if trim else values
        for kind in wanted:
            try:
                return trimmed.cast(kind)
            except pa.ArrowInvalid:
                continue
    found: list[float | None] = []
    refused = []
    for row, value in enumerate(values.to_pylist()):
        try:
            # Python would take `1_000` as well.
            found.append(None if value is None else float(value.replace("_", "?")))
        except ValueError:
            found.append(None if not column.required else 0.0)
            refused.append(row)
    _refuse(column, values, np.array(refused, np.intp), "a number", bad)
    return pa.array(found, pa.float64())


def _booleans(
    values: pa.Array, column: Column, text: bool, bad: dict[int, str]
) -> npt.NDArray[Any]:
    if text:
        lower = pc.ascii_lower(pc.utf8_trim_whitespace(values))
        fits = pc.fill_null(pc.is_in(lower, value_set=pa.array(["true", "false"])), False)
        wrong = pc.and_(pc.is_valid(values), pc.invert(fits))
        rows = np.flatnonzero(wrong.to_numpy(zero_copy_only=False))
        _refuse(column, values, rows, "true or false", bad)
        values = pc.if_else(wrong, False, pc.equal(lower, "true"))
    holes = pc.is_null(values).to_numpy(zero_copy_only=False)
    if not holes.any():
        return np.asarray(values.to_numpy(zero_copy_only=False))
    _missing(column, holes, bad)
    found = pc.fill_null(values.cast(pa.bool_()), False).to_numpy(zero_copy_only=False)
    if column.required:
        return np.asarray(found)
    return np.asarray(np.where(holes, None, found.astype(object)))


def _strings(values: pa.Array, column: Column, text: bool, bad: dict[int, str]) -> npt.NDArray[Any]:
    _missing(column, pc.is_null(values).to_numpy(zero_copy_only=False), bad)
    # One Python object for each text that is different.
    encoded = values.cast(pa.string()).dictionary_encode()
    words = np.array([*encoded.dictionary.to_pylist(), np.nan], object)
    places = pc.fill_null(encoded.indices, len(words) - 1).to_numpy(zero_copy_only=False)
    return np.asarray(words[places])


def _others(values: pa.Array, column: Column, text: bool, bad: dict[int, str]) -> npt.NDArray[Any]:
    _missing(column, pc.is_null(values).to_numpy(zero_copy_only=False), bad)
    return np.asarray(values.to_pandas())


_Reader = Callable[[pa.Array, Column, bool, dict[int, str]], npt.NDArray[Any]]
_READERS: Mapping[str, _Reader] = {
    **dict.fromkeys(NUMBERS, _numbers),
    "boolean": _booleans,
    "string": _strings,
}


def arrow_of(checked: Checked, column: Column) -> pa.Array:
    """Return a column in the Arrow type of the signature; holes are nulls."""
    values = checked.arrays[column.name]
    if column.type in NUMBERS:
        return pa.array(values, from_pandas=True).cast(pa.from_numpy_dtype(NUMBERS[column.type]))
    kind = {"boolean": pa.bool_(), "string": pa.string()}.get(column.type)
    return pa.array(values, kind, from_pandas=True)


def arrow_type(column: Column) -> pa.DataType | None:
    """Return the Arrow type of a column that was read from text; None leaves it text."""
    if column.type in NUMBERS:
        return pa.from_numpy_dtype(NUMBERS[column.type])
    return {"boolean": pa.bool_(), "string": pa.string()}.get(column.type)
