"""Columns of a batch brought into the types of the signature, and the rows where that fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from registry_tools.batch.validation.checked_columns import Checked, miss, refuse
from registry_tools.batch.validation.numbers import numbers_of
from registry_tools.data.schema import NUMBERS, Column, quoted_names
from registry_tools.errors import InputError

# What pandas takes for a missing value in a CSV, and with it the training.
_MISSING = [
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
    *("<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
]


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
        If a required column is missing, or one has a type that the model cannot take.
    """
    names = list(schema.names)
    missing = [c.name for c in columns if c.required and c.name not in names]
    if missing:
        raise InputError(
            f"{where}: missing column{'s' * (len(missing) > 1)} {quoted_names(missing)}; "
            f"the file has {quoted_names(names)}"
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
            values, column, text, checked
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


def _booleans(values: pa.Array, column: Column, text: bool, checked: Checked) -> npt.NDArray[Any]:
    if text:
        lower = pc.ascii_lower(pc.utf8_trim_whitespace(values))
        fits = pc.fill_null(pc.is_in(lower, value_set=pa.array(["true", "false"])), False)
        wrong = pc.and_(pc.is_valid(values), pc.invert(fits))
        rows = np.flatnonzero(wrong.to_numpy(zero_copy_only=False))
        refuse(column, values, rows, "true or false", checked)
        values = pc.if_else(wrong, False, pc.equal(lower, "true"))
    holes = pc.is_null(values).to_numpy(zero_copy_only=False)
    if not holes.any():
        return np.asarray(values.to_numpy(zero_copy_only=False))
    miss(column, holes, checked)
    found = pc.fill_null(values.cast(pa.bool_()), False).to_numpy(zero_copy_only=False)
    if column.required:
        return np.asarray(found)
    return np.asarray(np.where(holes, None, found.astype(object)))


def _strings(values: pa.Array, column: Column, text: bool, checked: Checked) -> npt.NDArray[Any]:
    miss(column, pc.is_null(values).to_numpy(zero_copy_only=False), checked)
    # One Python object for each text that is different.
    encoded = values.cast(pa.string()).dictionary_encode()
    words = np.array([*encoded.dictionary.to_pylist(), np.nan], object)
    places = pc.fill_null(encoded.indices, len(words) - 1).to_numpy(zero_copy_only=False)
    return np.asarray(words[places])


def _others(values: pa.Array, column: Column, text: bool, checked: Checked) -> npt.NDArray[Any]:
    miss(column, pc.is_null(values).to_numpy(zero_copy_only=False), checked)
    return np.asarray(values.to_pandas())


_Reader = Callable[[pa.Array, Column, bool, Checked], npt.NDArray[Any]]
_READERS: Mapping[str, _Reader] = {
    **dict.fromkeys(NUMBERS, numbers_of),
    "boolean": _booleans,
    "string": _strings,
}


def arrow_of(checked: Checked, column: Column) -> pa.Array:
    """Return a column in the Arrow type of the signature; holes are nulls."""
    if column.name in checked.exact:
        return checked.exact[column.name]
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
