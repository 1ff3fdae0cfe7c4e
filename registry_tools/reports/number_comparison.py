"""The part of the comparison page on the predictions of two regressions for the same rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from registry_tools.evaluation.comparison import PairedPredictions
from registry_tools.reports.table_parts import half_width, metric_values, row_values
from registry_tools.stats.metric import Outcomes
from registry_tools.stats.metric_comparison import MetricComparison
from registry_tools.stats.number_comparison import compare_number_metrics


def compare_numbers(compared: PairedPredictions, titles: list[str]) -> dict[str, Any]:
    """Return the values of the page: the metrics, and the rows with the largest disagreement."""
    first, second = (Outcomes(compared.labels, each.names) for each in (compared.first, compared.second))
    found = compare_number_metrics(compared.differences, first, second)
    apart = np.abs(first.predicted - second.predicted)
    unlike = np.flatnonzero(apart)
    largest = sorted(unlike, key=lambda place: -apart[place])
    return {
        "rows": compared.rows_phrase,
        "summary": _summary(compared, found[0], titles),
        "digits": "%.5g",
        **metric_values(found, titles, half_width),
        "counts": None,
        "tested": len(found),
        "left_out": 0,
        "unknown": [],
        "disagreed": len(unlike),
        **row_values(compared.rows, largest, lambda place: _cells(compared, place)),
    }


def _summary(compared: PairedPredictions, rmse: MetricComparison, titles: list[str]) -> str:
    first, second, difference = rmse.first.value, rmse.second.value, rmse.difference
    assert difference is not None
    if first == second:
        verdict = f"Both have the same {rmse.name} on {compared.rows_phrase}"
    else:
        verdict = (
            f"{titles[0 if first < second else 1]} has the smaller {rmse.name} on {compared.rows_phrase}"
        )
    chance = "which may be chance" if rmse.better is None else "which is significant"
    return (
        f"{verdict}: {first:.5g} and {second:.5g}, difference {difference.value:+.5g} "
        f"[{difference.low:+.5g}, {difference.high:+.5g}], {chance}."
    )


def _cells(compared: PairedPredictions, place: int) -> dict[str, str]:
    label = compared.labels[place]
    first, second = (
        f"{each.names[place]:.5g} ({each.names[place] - label:+.5g})"
        for each in (compared.first, compared.second)
    )
    return {"label": f"{label:.6g}", "first": first, "second": second}
