"""The gate `champion`, which compares a candidate with the version in the stage on the same rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from registry_tools.evaluation.verdict import GateResult
from registry_tools.stats.intervals import SIGNIFICANCE
from registry_tools.stats.metric_difference import MetricDifference

RULES = ("not-worse", "non-inferior", "better")
# A comparison needs at least this number of rows.
MINIMUM_ROWS = 20
# With fewer rows, `non-inferior` refuses nearly every equal candidate; with more, `not-worse` passes too
# many worse candidates.
NON_INFERIOR_ROWS = 300


def judge_distinct(
    gate: Callable[[npt.NDArray[np.bool_]], GateResult], distinct: npt.NDArray[np.bool_]
) -> GateResult:
    """Run a gate on the distinct rows; if it passes, it must also pass on all rows.

    A repeated row is not an independent observation, so it must not make a result significant. But a
    row may be repeated because it is common, so a candidate that is worse on such rows must not pass.

    Parameters
    ----------
    gate
        A function that runs the gate on the rows of a mask, shape (rows,).
    distinct
        The mask of the rows without repetitions, shape (rows,).
    """
    result = gate(distinct)
    repeated = int(np.sum(~distinct))
    if not repeated:
        return result
    note = f"; repeated rows left out: {repeated}"
    if result.passed:
        on_all = gate(np.ones_like(distinct))
        if not on_all.passed:
            result, note = on_all, f"; it passes without the repeated rows: {repeated}"
    metrics = {**result.metrics, "repeated_rows": float(repeated)}
    return replace(result, message=result.message + note, metrics=metrics)


def champion_gate(compared: MetricDifference, rule: str, margin: float, excluded: int | None) -> GateResult:
    """Pass if the candidate is good enough compared with the champion, by one of `RULES`.

    Parameters
    ----------
    compared
        The comparison on rows that neither was trained on.
    rule
        `not-worse`: the candidate is worse by at most the margin, and not significantly worse.
        `non-inferior`: the lower bound of the gain is above -margin. `better`: the candidate is
        significantly better.
    margin
        The negligible loss, in (0, 1): a difference in the metric, or a share of the champion's value if
        less is better.
    excluded
        The number of training rows that were left out; None if the champion's training rows are not
        recorded.
    """
    c = compared
    left_out = f" without {excluded} training rows" if excluded else ""
    if excluded is None:
        left_out = ", which may include training rows of the champion, as they are not recorded"
    shown = (
        f"{c.prefix}{c.candidate:{c.format}} against {c.champion:{c.format}} on {c.rows} "
        f"rows{left_out}: difference {c.difference:+{c.format}} [{c.low:+{c.format}}, "
        f"{c.high:+{c.format}}], p(worse) {c.p_worse:.3g}, p(better) {c.p_better:.3g}"
    )
    metrics = {**c.metrics(), "excluded_rows": float(excluded or 0)}

    def result(passed: bool, why: str) -> GateResult:
        return GateResult("champion", passed, f"{rule}: {shown}; {why}", metrics)

    if rule == "better":
        passed = c.p_better < SIGNIFICANCE
        return result(passed, "significantly better" if passed else "not significantly better")
    limit = f"{margin:.4g} of the champion's {c.metric}" if c.less_is_better else f"{margin}"
    if rule == "non-inferior":
        bound = f"lower bound {c.bound:+.4f}, margin {margin}"
        if c.less_is_better:
            bound = (
                f"at most {-c.bound:+.2%} worse at the 95% bound, margin {margin:.4g} of the champion's value"
            )
        if c.bound > -margin:
            return result(True, bound)
        needed = c.rows_needed(margin)
        few = f"; too few rows to show it: {needed} are enough" if c.rows < needed else ""
        return result(False, bound + few)
    if c.gain < -margin:
        return result(False, f"worse by more than the margin of {limit}")
    if c.p_worse < SIGNIFICANCE:
        return result(False, "significantly worse")
    advice = (
        f"; above {NON_INFERIOR_ROWS} rows prefer --rule non-inferior: of candidates that are worse by "
        "the margin, it passes only 5%"
    )
    return result(
        True, f"not worse by more than the margin of {limit}{advice if c.rows > NON_INFERIOR_ROWS else ''}"
    )


def undefined(gate: str, metric: str, rows: int) -> GateResult:
    """Return the refusal for a metric that has no value on the compared rows."""
    why = f"{metric} is undefined on the {rows} rows, for example because they lack a class"
    return GateResult(gate, False, f"{why}: give other rows with --eval-data FILE --target COLUMN")


def too_few_of_class(metric: str, compared: int, rows: int) -> GateResult:
    """Return the refusal of a comparison by a metric of a class that few of the rows have."""
    return GateResult(
        "champion",
        False,
        f"{metric} compares {compared} of the {rows} rows, {MINIMUM_ROWS} are needed: give more rows with "
        "--eval-data FILE --target COLUMN",
        {"rows": float(compared)},
    )


def too_few_rows(distinct: npt.NDArray[np.bool_], excluded: int) -> GateResult | None:
    """Return the refusal of a comparison on too few rows; None if there are enough.

    Parameters
    ----------
    distinct
        The mask of the rows to compare, without repetitions, shape (rows,).
    excluded
        The number of training rows that were left out.
    """
    left = int(np.sum(distinct))
    repeated = len(distinct) - left
    if left >= MINIMUM_ROWS:
        return None
    counts = [(excluded, "training rows"), (repeated, "repeated")]
    left_out = ", ".join(f"{count} {what}" for count, what in counts if count)
    split = "train with the champion's split, or with split=hash, or " if excluded else ""
    return GateResult(
        "champion",
        False,
        f"{left} of {len(distinct) + excluded} rows are left to compare, {MINIMUM_ROWS} are needed"
        f"{f' (left out: {left_out})' if left_out else ''}: {split}give more rows with --eval-data FILE "
        "--target COLUMN",
        {"rows": float(left), "excluded_rows": float(excluded), "repeated_rows": float(repeated)},
    )
