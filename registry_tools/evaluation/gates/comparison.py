"""The gates `champion` and `baseline`, which compare a candidate with others on the same rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from registry_tools.evaluation.verdict import GateResult
from registry_tools.stats.intervals import SIGNIFICANCE
from registry_tools.stats.paired_test import PairedComparison, compare_predictions, rows_needed

RULES = ("not-worse", "non-inferior", "better")
# A comparison needs at least this number of rows.
MINIMUM_ROWS = 20
# With fewer rows, `non-inferior` refuses nearly every equal candidate; with more, `not-worse` passes too
# many worse candidates.
NON_INFERIOR_ROWS = 300
# The smallest number of discordant rows, all in favour of the candidate, at which the one-sided exact
# McNemar test is significant.
_FEWEST_GAINS = math.floor(math.log2(1 / SIGNIFICANCE)) + 1
_BASELINE_FIX = "give more rows with --eval-data FILE --target COLUMN, or --no-baseline --reason TEXT"


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


def champion_gate(compared: PairedComparison, rule: str, margin: float, excluded: int | None) -> GateResult:
    """Pass if the candidate is good enough compared with the champion, by one of `RULES`.

    Parameters
    ----------
    compared
        The comparison on rows that neither was trained on.
    rule
        `not-worse`: the observed difference is at least -margin, and not significantly below zero.
        `non-inferior`: the lower bound of the difference is above -margin. `better`: the difference is
        significantly above zero.
    margin
        The negligible difference in accuracy, in (0, 1).
    excluded
        The number of training rows that were left out; None if the champion's training rows are not
        recorded.
    """
    c = compared
    left_out = f" without {excluded} training rows" if excluded else ""
    if excluded is None:
        left_out = ", which may include training rows of the champion, as they are not recorded"
    shown = (
        f"{c.candidate_accuracy:.4f} against {c.champion_accuracy:.4f} on {c.rows} rows{left_out}: "
        f"difference {c.difference:+.4f} [{c.low:+.4f}, {c.high:+.4f}], "
        f"p(worse) {c.p_worse:.3g}, p(better) {c.p_better:.3g}"
    )
    metrics = {**c.metrics(), "excluded_rows": float(excluded or 0)}

    def result(passed: bool, why: str) -> GateResult:
        # Comparisons of SciPy's values are NumPy booleans, which JSON cannot represent.
        return GateResult("champion", bool(passed), f"{rule}: {shown}; {why}", metrics)

    if rule == "better":
        passed = c.p_better < SIGNIFICANCE
        return result(passed, "significantly better" if passed else "not significantly better")
    if rule == "non-inferior":
        bound = f"lower bound {c.bound:+.4f}, margin {margin}"
        if c.bound > -margin:
            return result(True, bound)
        needed = rows_needed(c, margin)
        few = f"; too few rows to show it: {needed} are enough" if c.rows < needed else ""
        return result(False, bound + few)
    if c.difference < -margin:
        return result(False, f"worse by more than the margin of {margin}")
    if c.p_worse < SIGNIFICANCE:
        return result(False, "significantly worse")
    advice = (
        f"; above {NON_INFERIOR_ROWS} rows prefer --rule non-inferior: of candidates that are worse by "
        "the margin, it passes only 5%"
    )
    return result(
        True, f"not worse by more than the margin of {margin}{advice if c.rows > NON_INFERIOR_ROWS else ''}"
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


def baseline_gate(labels: npt.NDArray[Any], predictions: npt.NDArray[Any]) -> GateResult:
    """Pass if the candidate is significantly better than always predicting the commonest class.

    Parameters
    ----------
    labels, predictions
        The class names for rows that the candidate was not trained on, shape (rows,).

    Notes
    -----
    The test is the one-sided exact McNemar test at 5%, as for the rule `better`.
    """
    if not len(labels):
        return GateResult("baseline", False, f"there are no rows to evaluate on; {_BASELINE_FIX}")
    names, counts = np.unique(labels.astype(str), return_counts=True)
    commonest, others = str(names[counts.argmax()]), int(len(labels) - counts.max())
    compared = compare_predictions(labels, predictions, np.full(len(labels), commonest, dtype=object))
    passed = bool(compared.p_better < SIGNIFICANCE)
    message = (
        f"{compared.candidate_accuracy:.4f} against {compared.champion_accuracy:.4f} for always "
        f"{commonest!r} on {compared.rows} rows: p(better) {compared.p_better:.3g}"
    )
    if passed:
        message += "; significantly better"
    elif others < _FEWEST_GAINS:
        message += (
            f"; too few rows to show it: {others} of another class, {_FEWEST_GAINS} needed; {_BASELINE_FIX}"
        )
    elif compared.difference > 0:
        message += f"; not significantly better: train a better model, or {_BASELINE_FIX}"
    else:
        message += "; no better: train a better model, or --no-baseline --reason TEXT"
    metrics = {
        "rows": float(compared.rows),
        "accuracy": compared.candidate_accuracy,
        "baseline_accuracy": compared.champion_accuracy,
        "p_better": float(compared.p_better),
    }
    return GateResult("baseline", passed, message, metrics)
