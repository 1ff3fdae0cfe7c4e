"""Convert the columns of an Arrow batch to the types of a signature, and collect faulty values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from registry_tools.data.arrow_numbers import coerce_numbers
from registry_tools.data.coerced_batch import CoercedBatch
from registry_tools.data.schema import BOOLEAN, NUMBERS, Column, quoted_names
from registry_tools.errors import InputError

# The texts that pandas, and so the training, reads from a CSV as missing values.
MISSING_TEXTS = [
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
    *("<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
]
_NUMERIC = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
_ACCEPTED: Mapping[str, tuple[Callable[[pa.DataType], bool], ...]] = {
    **dict.fromkeys(NUMBERS, _NUMERIC),
    "boolean": (pa.types.is_boolean,),
    "string": (
        *(pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
        *(pa.types.is_timestamp, pa.types.is_date),  # models of `pipeline` take dates as text
    ),
    "datetime": (pa.types.is_temporal,),
}


def check_schema(schema: pa.Schema, columns: Sequence[Column], where: str, text: bool) -> None:
    """Compare the columns of a file with the signature.

    Parameters
    ----------
    schema, columns
        The columns of the file, all text for a CSV; and the columns of the signature.
    where
        The name of the file in errors.
    text
        Whether the values are text that is still to be parsed, as in a CSV.

    Raises
    ------
    InputError
        If a required column is missing, or the type of a column does not fit the signature.
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
    if pa.types.is_dictionary(given):
        given = given.value_type
    accepted = _ACCEPTED.get(wanted)
    return accepted is None or pa.types.is_null(given) or any(is_type(given) for is_type in accepted)


def coerce_batch(batch: pa.RecordBatch, columns: Sequence[Column], text: bool) -> CoercedBatch:
    """Convert a batch to the columns and types of a signature; keep the first fault of each row.

    Parameters
    ----------
    batch, columns
        The rows, and the columns of the signature. The batch may lack optional columns.
    text
        Whether the values are text from a CSV.
    """
    coerced = CoercedBatch(batch.num_rows, {})
    for column in columns:
        if column.name not in batch.schema.names:
            coerced.arrays[column.name] = _missing_column(batch.num_rows, column)
            continue
        values = batch.column(column.name)
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        if text:
            values = _null_missing(values)
        convert = _CONVERTERS.get(column.type, _keep_values)
        coerced.arrays[column.name] = convert(values, column, text, coerced)
    return coerced


def _missing_column(rows: int, column: Column) -> npt.NDArray[Any]:
    if column.type in NUMBERS:
        return np.full(rows, np.nan)
    return np.full(rows, None if column.type == "boolean" else np.nan, object)


def _null_missing(values: pa.Array) -> pa.Array:
    """Replace texts that mean a missing value, such as `NA`, by nulls."""
    missing = pc.is_in(values, value_set=pa.array(MISSING_TEXTS))
    return pc.if_else(missing, None, values) if pc.any(missing).as_py() else values


def _coerce_booleans(values: pa.Array, column: Column, text: bool, coerced: CoercedBatch) -> npt.NDArray[Any]:
    if text:
        lower = pc.ascii_lower(pc.utf8_trim_whitespace(values))
        fits = pc.fill_null(pc.is_in(lower, value_set=pa.array(["true", "false"])), False)
        wrong = pc.and_(pc.is_valid(values), pc.invert(fits))
        coerced.add_faults(column, values, np.asarray(wrong), BOOLEAN)
        values = pc.if_else(wrong, False, pc.equal(lower, "true"))
    values = values.cast(pa.bool_())
    coerced.add_missing(column, np.asarray(pc.is_null(values)))
    return np.asarray(pc.fill_null(values, False) if column.required else values)


def _coerce_strings(values: pa.Array, column: Column, text: bool, coerced: CoercedBatch) -> npt.NDArray[Any]:
    coerced.add_missing(column, np.asarray(pc.is_null(values)))
    # Create one Python object for each distinct text.
    encoded = values.cast(pa.string()).dictionary_encode()
    words = np.array([*encoded.dictionary.to_pylist(), np.nan], object)
    return np.asarray(words[np.asarray(pc.fill_null(encoded.indices, len(words) - 1))])


def _keep_values(values: pa.Array, column: Column, text: bool, coerced: CoercedBatch) -> npt.NDArray[Any]:
    coerced.add_missing(column, np.asarray(pc.is_null(values)))
    return np.asarray(values.to_pandas())


_Converter = Callable[[pa.Array, Column, bool, CoercedBatch], npt.NDArray[Any]]
_CONVERTERS: Mapping[str, _Converter] = {
    **dict.fromkeys(NUMBERS, coerce_numbers),
    "boolean": _coerce_booleans,
    "string": _coerce_strings,
}


def to_arrow(coerced: CoercedBatch, column: Column) -> pa.Array:
    """Return a column in the Arrow type of the signature; missing values are nulls."""
    if column.name in coerced.exact:
        return coerced.exact[column.name]
    values, kind = coerced.arrays[column.name], arrow_type(column)
    if column.type in NUMBERS:
        return pa.array(values, from_pandas=True).cast(kind)
    return pa.array(values, kind, from_pandas=True)


def to_frame(coerced: CoercedBatch, columns: Sequence[Column]) -> Any:
    """Return the rows as a DataFrame, equal to the result of `coerce` for the same rows."""
    import pandas as pd

    arrays = {column.name: coerced.arrays[column.name] for column in columns}
    # State the type: pandas would convert arrays of objects to its own string type.
    return pd.DataFrame({name: pd.Series(a, dtype=a.dtype) for name, a in arrays.items()})


def arrow_type(column: Column) -> pa.DataType | None:
    """Return the Arrow type for a column of a signature; None if its values stay text."""
    if column.type in NUMBERS:
        return pa.from_numpy_dtype(NUMBERS[column.type])
    return {"boolean": pa.bool_(), "string": pa.string()}.get(column.type)
