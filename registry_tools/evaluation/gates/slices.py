"""The gate `slices`, which compares a candidate with its champion in each group of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from registry_tools.evaluation.gates.comparison import MINIMUM_ROWS
from registry_tools.evaluation.verdict import GateResult
from registry_tools.stats.intervals import SIGNIFICANCE
from registry_tools.stats.metric import Metric, Outcomes, compared_rows
from registry_tools.stats.metric_difference import MetricDifference
from registry_tools.stats.multiple_testing import holm
from registry_tools.stats.paired_metric import compare_by

# With more groups, most would have too few rows.
MAXIMUM_GROUPS = 20


@dataclass(frozen=True)
class Group:
    """The rows with one value of a slice column; `compared` is None if they cannot be compared.

    There are too few of them, or the metric is undefined, for example because they lack a class.
    """

    column: str
    value: str | None  # None for missing values
    rows: int  # that the metric compares
    compared: MetricDifference | None

    @property
    def title(self) -> str:
        """The name of the group in messages."""
        return f"{self.column} missing" if self.value is None else f"{self.column}={self.value!r}"


def group_rows(
    column: str, values: Sequence[str | None], metric: Metric, candidate: Outcomes, champion: Outcomes
) -> list[Group]:
    """Compare candidate and champion within each group of a column.

    Parameters
    ----------
    column
        The name of the column.
    values
        The value of each row as text; None for missing values, which form a group as well.
    metric, candidate, champion
        The metric to compare by, and both versions on the rows.
    """
    groups = []
    for value in sorted(set(values), key=lambda value: (value is None, value or "")):
        among = np.array([each == value for each in values], dtype=bool)
        pair = candidate.take(among), champion.take(among)
        rows = compared_rows(metric, *pair)
        compared = compare_by(metric, *pair) if rows >= MINIMUM_ROWS else None
        groups.append(Group(column, value, rows, compared))
    return groups


def slices_gate(groups: Sequence[Group]) -> GateResult:
    """Pass unless the candidate is significantly worse than the champion in a group.

    The one-sided p-values are corrected together over all groups of all columns. The message names the
    groups that cannot be compared. At least one group must be large enough.
    """
    judged = [(group, group.compared) for group in groups if group.compared is not None]
    left_out = [f"{group.title} ({group.rows})" for group in groups if group.compared is None]
    few = f"; not judged, {_why_not(groups)}: {_shortened(left_out)}" if left_out else ""
    if not judged:
        return GateResult(
            "slices", False, f"no group has {MINIMUM_ROWS} rows{few}: give --eval-data FILE --target COLUMN"
        )
    adjusted = holm([compared.p_worse for _, compared in judged])
    harmed = [
        f"{group.title}: {c.prefix}{c.candidate:{c.format}} against {c.champion:{c.format}} "
        f"on {c.rows} rows, p(worse) {p:.3g}"
        for (group, c), p in sorted(zip(judged, adjusted, strict=True), key=lambda pair: pair[1])
        if p < SIGNIFICANCE
    ]
    metrics = {
        "groups": float(len(judged)),
        "groups_not_judged": float(len(left_out)),
        "groups_harmed": float(len(harmed)),
        "p_worse": min(adjusted),
    }
    corrected = f"corrected over {len(judged)} group{'s' * (len(judged) > 1)}"
    where = _shortened(harmed) if harmed else f"no group: lowest p(worse) {min(adjusted):.3g}"
    return GateResult("slices", not harmed, f"significantly worse in {where}, {corrected}{few}", metrics)


def _why_not(groups: Sequence[Group]) -> str:
    few = f"fewer than {MINIMUM_ROWS} rows"
    large = any(group.compared is None and group.rows >= MINIMUM_ROWS for group in groups)
    return f"{few} or without a value of the metric" if large else few


def _shortened(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
