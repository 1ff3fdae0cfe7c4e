"""The cells that the tables of a comparison share: intervals as drawings, and values as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from registry_tools.stats.metric_comparison import MetricComparison

ROWS = 50
COLUMNS = 12
CHARACTERS = 80  # of a name or value on the page
_MIDDLE, _HALF = 80, 70  # the centre and half of the width of an interval's drawing, in pixels


def metric_values(shown: Sequence[MetricComparison], titles: Sequence[str]) -> dict[str, Any]:
    """Return the rows of the table of metrics, and the metrics in which one version is clearly better."""
    shares = [_half_width(each) for each in shown if not each.less_is_better]
    return {
        "clear": [f"{each.name} ({titles[each.better]})" for each in shown if each.better is not None],
        "metrics": [
            vars(each)
            | {
                # An error has its own scale.
                "drawn": _draw(each, _half_width(each) if each.less_is_better else max(shares)),
                "shows": "not clear" if each.better is None else titles[each.better],
            }
            for each in shown
        ],
    }


def row_values(
    rows: pd.DataFrame, places: npt.NDArray[np.int64], cells: Callable[[int], dict[str, str]]
) -> dict[str, Any]:
    """Return the table of the rows on which two versions disagree; `cells` returns both predictions."""
    columns = [str(column)[:CHARACTERS] for column in rows.columns]
    return {
        "columns": columns[:COLUMNS],
        "more_columns": max(0, len(columns) - COLUMNS),
        "disagreements": [
            {
                "place": place,
                **cells(place),
                # Read each cell by its column: pandas would convert a row of integers and floats to floats.
                "values": [value_text(rows[column].iloc[place]) for column in rows.columns[:COLUMNS]],
            }
            for place in places[:ROWS].tolist()
        ],
    }


def _half_width(metric: MetricComparison) -> float:
    """Return the largest distance of the difference's interval from zero."""
    if metric.difference is None:
        return 0.0
    return max(abs(metric.difference.low), abs(metric.difference.high), 1e-9)


def _draw(metric: MetricComparison, widest: float) -> dict[str, Any] | None:
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
