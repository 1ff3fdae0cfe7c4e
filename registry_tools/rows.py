"""The identity of a row: a hash of its content, the same wherever and whenever it is read."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd


def hash_rows(table: pd.DataFrame) -> npt.NDArray[np.uint64]:
    """Return one 64-bit hash a row, shape (rows,).

    It depends on the names and the values of the columns alone: not on their order, nor on
    whether a number is stored as an integer or a float, nor on how text is stored. So a row keeps
    its hash when the table grows, and when it is read again from another format.
    """
    ordered = table[sorted(table.columns)]
    plain = pd.DataFrame({name: _plain(column) for name, column in ordered.items()})
    hashes = pd.util.hash_pandas_object(plain, index=False, categorize=True).to_numpy(np.uint64)
    return hashes ^ np.uint64(_name_salt(tuple(ordered.columns)))


def _plain(column: pd.Series) -> pd.Series:
    """Give numbers as float64 and all else as Python text, holes as one and the same value."""
    # A column of booleans with a hole is read as text: without one it must hash alike.
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        # Adding zero turns -0.0 into 0.0: equal numbers must hash alike.
        return column.astype("float64") + 0.0
    return column.astype(object).where(column.notna(), None).map(str, na_action="ignore")


def _name_salt(names: tuple[str, ...]) -> int:
    name_frame = pd.Series(["\x1f".join(names)], dtype=object)
    return int(pd.util.hash_pandas_object(name_frame, index=False).iloc[0])


def unit_interval(hashes: npt.NDArray[np.uint64], seed: int) -> npt.NDArray[np.float64]:
    """Spread the hashes evenly over [0, 1), differently for every seed; shape (rows,).

    The finalizer of SplitMix64 (Steele, Lea and Flood, 2014) over hash and seed: the bits of
    `hash_rows` are even for text, but not for short runs of numbers.
    """
    with np.errstate(over="ignore"):
        z = hashes + np.uint64(0x9E3779B97F4A7C15) * np.uint64(2 * seed + 1)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)).astype(np.float64) / float(1 << 53)
