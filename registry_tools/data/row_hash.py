"""Hash the content of rows, so that the same row has the same hash in every table and format."""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

_NUMBERS = (int, float, np.integer, np.floating, Decimal)
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d)(?::(\d\d)(?:\.(\d+))?)?(Z|[+-]\d\d:?\d\d)?", re.ASCII)
_MISSING = np.uint64(0x9AE16A3B2F90404F)


def hash_rows(table: pd.DataFrame) -> npt.NDArray[np.uint64]:
    """Return one 64-bit hash for each row, shape (rows,).

    The hash depends only on the names and values of the columns. It does not depend on their order,
    or on the storage of a number: as an integer, as a float or, in a column that also holds text, as
    its shortest text. So a row keeps its hash when the table grows, and when another format holds it.
    A date and a time have the hash of their ISO text, whether a table holds them as text or as dates.
    Any other text is hashed as written: `1000`, `01000`, `1e3` and `1000.0` are four different codes.
    Numbers are hashed as float64, so integers that differ only beyond its 53 bits have the same hash.
    """
    rows = np.zeros(len(table), dtype=np.uint64)
    for name in sorted(table.columns):
        salt = pd.util.hash_array(np.array([name], dtype=object))[0]
        rows = _mix_bits(rows ^ _mix_bits(_hash_column(table[name]) + salt))
    return rows


def _hash_column(column: pd.Series) -> npt.NDArray[np.uint64]:
    """Return the hash of each value: numbers as float64, others as text, one hash for missing values."""
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        hashes = _hash_numbers(column.astype("float64").to_numpy())
    else:
        texts = column.astype(object).where(column.notna(), None).map(_as_text, na_action="ignore")
        hashes = _hash_texts(texts.astype(object))
    return np.where(column.isna().to_numpy(), _MISSING, hashes)


def _hash_texts(texts: pd.Series) -> npt.NDArray[np.uint64]:
    """Return the hash of each text; the shortest text of a number has the hash of the number."""
    hashes = pd.util.hash_array(texts.to_numpy(), categorize=True)
    numbers = pd.to_numeric(texts, errors="coerce").to_numpy(dtype="float64")
    finite = np.flatnonzero(np.isfinite(numbers))
    shortest = np.array([_as_text(number) for number in numbers[finite].tolist()], dtype=object)
    plain = finite[shortest == texts.to_numpy()[finite]]
    hashes[plain] = _hash_numbers(numbers[plain])
    return hashes


def _as_text(value: Any) -> str:
    """Return a value as text; for a number, the shortest text that parses to it; for a date, ISO text."""
    if isinstance(value, date):
        value = value.isoformat()
    if isinstance(value, str):
        return _as_iso(value) if value[4:5] == "-" else value
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, _NUMBERS):
        return str(value)
    exact = isinstance(value, (int, np.integer)) or (abs(value) < 2**53 and value == int(value))
    return str(int(value)) if exact else repr(float(value))


def _as_iso(text: str) -> str:
    """Return the text of a time in one form, without a time at midnight; return other text as written."""
    found = _TIME.fullmatch(text)
    if found is None:
        return text
    day, minute, second, fraction, zone = found.groups(default="")
    digits = fraction.rstrip("0")
    time = f"{minute}:{second or '00'}{f'.{digits}' if digits else ''}"
    if zone:
        zone = "+00:00" if zone == "Z" else f"{zone[:3]}:{zone[-2:]}"
    elif time == "00:00:00":  # CSV files mostly leave it out
        return day
    return f"{day}T{time}{zone}"


def _hash_numbers(numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.uint64]:
    # Adding zero turns -0.0 into 0.0: equal numbers must have equal hashes.
    return pd.util.hash_array(numbers + 0.0)


def unit_interval(hashes: npt.NDArray[np.uint64], seed: int) -> npt.NDArray[np.float64]:
    """Map hashes to numbers spread evenly over [0, 1), shape (rows,); each seed gives another mapping."""
    with np.errstate(over="ignore"):
        spread = _mix_bits(hashes + np.uint64(0x9E3779B97F4A7C15) * np.uint64(2 * seed + 1))
    return (spread >> np.uint64(11)).astype(np.float64) / float(1 << 53)


def _mix_bits(z: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Make each bit depend on all bits, by the finalizer of SplitMix64 (Steele et al., 2014)."""
    with np.errstate(over="ignore"):
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))
