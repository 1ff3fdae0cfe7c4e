"""Compute the population stability index (PSI): how much a distribution has changed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

Floats = npt.NDArray[np.float64]
Counts = Mapping[str, int]  # rows by category


def psi(expected: npt.NDArray[np.int64], found: npt.NDArray[np.int64]) -> float:
    """Return the population stability index (PSI) of two histograms.

    Parameters
    ----------
    expected, found
        Rows by bin, shape (bins,). Half a row is added to each bin, so that no bin is empty.
    """
    before, current = ((counts + 0.5) / np.sum(counts + 0.5) for counts in (expected, found))
    return float(np.sum((current - before) * np.log(current / before)))


def psi_of_numbers(expected: pd.Series, found: pd.Series, edges: Floats) -> float:
    """Return the PSI of numbers, shape (rows,), in the bins between the edges, without missing values."""
    places = [np.searchsorted(edges, side.dropna(), side="right") for side in (expected, found)]
    return psi(*(np.bincount(each, minlength=len(edges) + 1) for each in places))


def psi_of_categories(expected: Counts, others: int, found: Counts) -> float:
    """Return the PSI of categories.

    Parameters
    ----------
    expected
        Rows by category.
    others
        Rows of all further categories, which `expected` does not name. If there are such rows, all
        categories that `expected` does not name are one category.
    found
        Rows by category.
    """
    names = sorted(expected if others else {*expected, *found})
    sides = [[side.get(name, 0) for name in names] for side in (expected, found)]
    if others:
        rest = sum(rows for name, rows in found.items() if name not in expected)
        sides = [[*side, more] for side, more in zip(sides, (others, rest), strict=True)]
    return psi(*map(np.array, sides))
