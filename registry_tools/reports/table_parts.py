"""The cells that the tables of a comparison share: intervals as drawings, and values as text."""

from __future__ import annotations

from typing import Any

import pandas as pd

from registry_tools.stats.metric_comparison import MetricComparison

ROWS = 50
COLUMNS = 12
CHARACTERS = 80  # of a name or value on the page
_MIDDLE, _HALF = 80, 70  # the centre and half of the width of an interval's drawing, in pixels


def half_width(metric: MetricComparison) -> float:
    """Return the largest distance of the difference's interval from zero."""
    if metric.difference is None:
        return 0.0
    return max(abs(metric.difference.low), abs(metric.difference.high), 1e-9)


def interval_drawing(metric: MetricComparison, widest: float) -> dict[str, Any] | None:
    """Return the places of an interval in its drawing; `widest` reaches its edge."""
    if metric.difference is None:
        return None
    places = {
        name: round(_MIDDLE + _HALF * value / widest, 1) for name, value in vars(metric.difference).items()
    }
    colour = "quiet" if metric.better is None else ("first", "second")[metric.better]
    return places | {"colour": colour}


def value_text(value: Any) -> str:
    """Return the value of a cell as text."""
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)[:CHARACTERS]
