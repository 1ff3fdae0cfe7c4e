"""Correction of several tests that are read together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values adjusted by Holm, in the given order.

    If you reject where the adjusted p-value is below 0.05, the chance of any false rejection is at
    most 5%, however the tests depend on each other. SciPy has no Holm: its `false_discovery_control`
    bounds the share of false rejections instead.
    """
    given = np.asarray(p_values, dtype=float)
    order = np.argsort(given, kind="stable")
    factors = np.arange(len(given), 0, -1)
    adjusted = np.empty_like(given)
    adjusted[order] = np.minimum(np.maximum.accumulate(given[order] * factors), 1.0)
    return adjusted.tolist()
