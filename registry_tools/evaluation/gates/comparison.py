"""The gates that compare predictions: with the champion, the majority class, and in groups of rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from registry_tools.evaluation.verdict import GateResult
from registry_tools.stats.intervals import SIGNIFICANCE
from registry_tools.stats.multiple_testing import holm
from registry_tools.stats.paired_test import PairedComparison, compare_predictions, rows_needed

RULES = ("not-worse", "non-inferior", "better")
# A comparison on fewer rows than this shows nothing, whatever its result.
MINIMUM_ROWS = 20
# Below, `non-inferior` refuses nearly every equal candidate; above, `not-worse` passes too many worse ones.
NON_INFERIOR_ROWS = 300
# So many discordant rows, all in its favour, make the one-sided exact McNemar test significant.
_FEWEST_GAINS = math.floor(math.log2(1 / SIGNIFICANCE)) + 1
# More groups than this are no groups: most would have too few rows.
MAXIMUM_GROUPS = 20
_BASELINE_FIX = "give more rows with --eval-data FILE --target COLUMN, or --no-baseline --reason TEXT"


def champion_gate(compared: PairedComparison, rule: str, margin: float, excluded: int | None) -> GateResult:
    """Pass if the candidate is good enough beside the champion, by one of `RULES`.

    Parameters
    ----------
    compared
        Both on the candidate's holdout, without the rows that either was trained on.
    rule
        `not-worse`: the observed difference is at least -margin, and not significantly below zero.
        `non-inferior`: the lower bound of the difference lies above -margin. `better`: significantly
        better.
    margin
        A difference in accuracy that does not matter, in (0, 1).
    excluded
        How many rows were left out because one of the two was trained on them; None if it is not
        recorded which the champion was trained on.
    """
    c = compared
    left_out = f", {excluded} left out that were trained on" if excluded else ""
    if excluded is None:
        left_out = ", some of which the champion may have been trained on: that is not recorded"
    shown = (
        f"{c.candidate_accuracy:.4f} against {c.champion_accuracy:.4f} on {c.rows} rows{left_out}: "
        f"difference {c.difference:+.4f} [{c.low:+.4f}, {c.high:+.4f}], "
        f"p(worse) {c.p_worse:.3g}, p(better) {c.p_better:.3g}"
    )
    metrics = {**c.metrics(), "excluded_rows": float(excluded or 0)}

    def result(passed: bool, why: str) -> GateResult:
        # SciPy's comparisons are NumPy's booleans, which JSON does not know.
        return GateResult("champion", bool(passed), f"{rule}: {shown}; {why}", metrics)

    if rule == "better":
        passed = c.p_better < SIGNIFICANCE
        return result(passed, "significantly better" if passed else "not significantly better")
    if rule == "non-inferior":
        bound = f"lower bound {c.bound:+.4f}, margin {margin}"
        if c.bound > -margin:
            return result(True, bound)
        needed = rows_needed(c, margin)
        few = f"; too few rows to show it: {needed} would do" if c.rows < needed else ""
        return result(False, bound + few)
    if c.difference < -margin:
        return result(False, f"more than the margin of {margin} below")
    if c.p_worse < SIGNIFICANCE:
        return result(False, "significantly worse")
    advice = (
        f"; above {NON_INFERIOR_ROWS} rows prefer --rule non-inferior: of candidates that are worse by "
        "the margin, it passes only 5%"
    )
    return result(True, f"within the margin of {margin}{advice if c.rows > NON_INFERIOR_ROWS else ''}")


def too_few_rows(left: int, excluded: int) -> GateResult | None:
    """Return the refusal of a comparison on hardly any rows, or None if there are enough."""
    if left >= MINIMUM_ROWS:
        return None
    return GateResult(
        "champion",
        False,
        f"{left} of {left + excluded} rows are left to compare on, {MINIMUM_ROWS} are needed: the "
        "others were trained on; train with the champion's split, or with split=hash, or give "
        "--eval-data FILE --target COLUMN",
        {"rows": float(left), "excluded_rows": float(excluded)},
    )


@dataclass(frozen=True)
class Group:
    """The rows of one value of a slice column; `compared` is None where they are too few."""

    column: str
    value: str | None  # None: it is missing
    rows: int
    compared: PairedComparison | None

    @property
    def title(self) -> str:
        """The group as messages name it."""
        return f"{self.column} missing" if self.value is None else f"{self.column}={self.value!r}"


def baseline_gate(labels: npt.NDArray[Any], predictions: npt.NDArray[Any]) -> GateResult:
    """Pass if the candidate is significantly better than always predicting the commonest class.

    Parameters
    ----------
    labels, predictions
        Class names of the rows that the candidate was not trained on, shape (rows,).

    Notes
    -----
    The test is the one-sided exact McNemar test at 5%, as of the rule `better`.
    """
    if not len(labels):
        return GateResult("baseline", False, f"there are no rows to show it on; {_BASELINE_FIX}")
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


def group_rows(
    column: str,
    values: Sequence[str | None],
    labels: npt.NDArray[Any],
    candidate: npt.NDArray[Any],
    champion: npt.NDArray[Any],
) -> list[Group]:
    """Compare candidate and champion within each group of a column.

    Parameters
    ----------
    column
        The name of the column.
    values
        Its value in each row as text, None where it is missing: those are a group as well.
    labels, candidate, champion
        Class names, shape (rows,).
    """
    groups = []
    for value in sorted(set(values), key=lambda value: (value is None, value or "")):
        among = np.array([each == value for each in values], dtype=bool)
        rows = int(among.sum())
        compared = None
        if rows >= MINIMUM_ROWS:
            compared = compare_predictions(labels[among], candidate[among], champion[among])
        groups.append(Group(column, value, rows, compared))
    return groups


def slices_gate(groups: Sequence[Group]) -> GateResult:
    """Pass if the candidate is in no group significantly worse than the champion.

    The p-values of the one-sided exact McNemar test are corrected together, over all groups of
    all columns. Groups of too few rows are named, and not judged; one at least must be.
    """
    judged = [(group, group.compared) for group in groups if group.compared is not None]
    left_out = [f"{group.title} ({group.rows})" for group in groups if group.compared is None]
    few = f"; not judged, fewer than {MINIMUM_ROWS} rows: {_shortened(left_out)}" if left_out else ""
    if not judged:
        return GateResult(
            "slices", False, f"no group has {MINIMUM_ROWS} rows{few}: give --eval-data FILE --target COLUMN"
        )
    adjusted = holm([compared.p_worse for _, compared in judged])
    harmed = [
        f"{group.title}: {compared.candidate_accuracy:.4f} against {compared.champion_accuracy:.4f} "
        f"on {compared.rows} rows, p(worse) {p:.3g}"
        for (group, compared), p in sorted(zip(judged, adjusted, strict=True), key=lambda pair: pair[1])
        if p < SIGNIFICANCE
    ]
    metrics = {
        "groups": float(len(judged)),
        "groups_not_judged": float(len(left_out)),
        "groups_harmed": float(len(harmed)),
        "p_worse": min(adjusted),
    }
    corrected = f"corrected over {len(judged)} group{'s' * (len(judged) > 1)}"
    if harmed:
        message = f"significantly worse in {_shortened(harmed)}, {corrected}{few}"
        return GateResult("slices", False, message, metrics)
    message = f"significantly worse in no group: lowest p(worse) {min(adjusted):.3g}, {corrected}{few}"
    return GateResult("slices", True, message, metrics)


def _shortened(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
