"""A metric of a user, for `metric=module:function`."""

from __future__ import annotations

from typing import Any

import numpy as np


def agreement(labels: Any, predicted: Any) -> float:
    """Return the share of rows with an equal label and prediction."""
    return float(np.mean(labels == predicted))


def negative_error(labels: Any, predicted: Any) -> float:
    """Return minus the mean absolute error."""
    return float(-np.mean(np.abs(labels - predicted)))
