"""The identity of a row: a hash of its content, the same wherever and whenever it is read."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

_NUMBERS = (int, float, np.integer, np.floating, Decimal)
_MISSING = np.uint64(0x9AE16A3B2F90404F)


def hash_rows(table: pd.DataFrame) -> npt.NDArray[np.uint64]:
    """Return one 64-bit hash a row, shape (rows,).

    It depends on the names and the values of the columns alone: not on their order, nor on
    whether a number is stored as an integer, a float or, because its column holds text too, as
    its shortest text. So a row keeps its hash when the table grows, and when it is read again from
    another format. Any other text counts as it is written: `1000`, `01000`, `1e3` and `1000.0` are
    four codes. Numbers count as float64: integers that differ beyond its 53 bits hash alike.
    """
    rows = np.zeros(len(table), dtype=np.uint64)
    for name in sorted(table.columns):
        salt = pd.util.hash_array(np.array([name], dtype=object))[0]
        rows = _mix_bits(rows ^ _mix_bits(_hash_column(table[name]) + salt))
    return rows


def _hash_column(column: pd.Series) -> npt.NDArray[np.uint64]:
    """Return one hash a value: of the float64 of numbers, of the text of others, one of missing."""
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        hashes = _hash_numbers(column.astype("float64").to_numpy())
    else:
        texts = column.astype(object).where(column.notna(), None).map(_as_text, na_action="ignore")
        hashes = _hash_texts(texts.astype(object))
    return np.where(column.isna().to_numpy(), _MISSING, hashes)


def _hash_texts(texts: pd.Series) -> npt.NDArray[np.uint64]:
    """Return one hash a text: that of the number whose text it is, if there is one."""
    hashes = pd.util.hash_array(texts.to_numpy(), categorize=True)
    numbers = pd.to_numeric(texts, errors="coerce").to_numpy(dtype="float64")
    finite = np.flatnonzero(np.isfinite(numbers))
    shortest = np.array([_as_text(number) for number in numbers[finite].tolist()], dtype=object)
    plain = finite[shortest == texts.to_numpy()[finite]]
    hashes[plain] = _hash_numbers(numbers[plain])
    return hashes


def _as_text(value: Any) -> str:
    """Return the one text of a value: of a number the shortest that reads as it."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, _NUMBERS):
        return str(value)
    exact = isinstance(value, (int, np.integer)) or (abs(value) < 2**53 and value == int(value))
    return str(int(value)) if exact else repr(float(value))


def _hash_numbers(numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.uint64]:
    # Adding zero turns -0.0 into 0.0: equal numbers must hash alike.
    return pd.util.hash_array(numbers + 0.0)


def unit_interval(hashes: npt.NDArray[np.uint64], seed: int) -> npt.NDArray[np.float64]:
    """Spread the hashes evenly over [0, 1), differently for every seed; shape (rows,)."""
    with np.errstate(over="ignore"):
        spread = _mix_bits(hashes + np.uint64(0x9E3779B97F4A7C15) * np.uint64(2 * seed + 1))
    return (spread >> np.uint64(11)).astype(np.float64) / float(1 << 53)


def _mix_bits(z: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Let every bit depend on every other: the finalizer of SplitMix64 (Steele et al., 2014)."""
    with np.errstate(over="ignore"):
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))
