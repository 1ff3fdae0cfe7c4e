"""The checks between a candidate and a stage: plain values in, one result a gate out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from registry_tools.data.schema import Column, TensorSchema, UnsupportedTensor, tensor_fault
from registry_tools.evaluation.verdict import GateResult
from registry_tools.stats.paired_test import SIGNIFICANCE, PairedComparison, minimum_rows, rows_needed

RULES = ("not-worse", "non-inferior", "better")
# A comparison on fewer rows than this shows nothing, whatever its result.
MINIMUM_ROWS = 20

# A client that sends the first type is served by a model that takes one of the others.
_WIDER = {"integer": {"integer", "long", "double"}, "long": {"long", "double"}, "float": {"float", "double"}}


def integrity_gate(
    faults: Sequence[str], files: int, has_manifest: bool = True, public_key: Path | None = None
) -> GateResult:
    """Pass if no file differs from the manifest, or from the signature where one is required.

    Parameters
    ----------
    faults
        What differs, and how.
    files
        How many files there are.
    has_manifest
        Whether one was made at registration.
    public_key
        The key whose signature was required, for the message.
    """
    if faults:
        return GateResult("integrity", False, "; ".join(faults[:5]))
    compared = (
        f"{files} files match the manifest"
        if has_manifest
        else "registered without a manifest: nothing to compare"
    )
    signed = f", signed with {public_key}" if public_key is not None else ""
    return GateResult("integrity", True, compared + signed, {"files": files})


def signature_gate(
    candidate: Sequence[Column] | TensorSchema | UnsupportedTensor | None,
    champion: Sequence[Column] | TensorSchema | UnsupportedTensor | None,
) -> GateResult:
    """Pass if the candidate has a signature, and takes what the champion's clients send."""
    if candidate is None:
        return GateResult(
            "signature", False, "the candidate has no signature that names and types its columns"
        )
    if not isinstance(candidate, Sequence) or not isinstance(champion, Sequence | None):
        fault = tensor_fault(candidate, champion)
        fits = "no champion to fit" if champion is None else "takes what clients send"
        return GateResult("signature", fault is None, fault or f"{candidate}, {fits}")
    if champion is None:
        return GateResult("signature", True, f"{len(candidate)} columns, no champion to fit")
    sent = {column.name: column for column in champion}
    faults = []
    for column in candidate:
        existing = sent.get(column.name)
        if existing is None:
            if column.required:
                faults.append(f"new required column {column.name!r}")
        elif column.type not in _WIDER.get(existing.type, {existing.type}):
            faults.append(f"column {column.name!r} was {existing.type}, is {column.type}")
        elif column.required and not existing.required:
            faults.append(f"column {column.name!r} was optional, is required")
    taken = {column.name for column in candidate}
    removed = [column.name for column in champion if column.name not in taken]
    added = [column.name for column in candidate if column.name not in sent]
    if removed and added:
        faults.append(f"{_names(removed)} no longer taken, {_names(added)} new: renamed?")
    shared = [column.name for column in candidate if column.name in sent]
    if shared != [column.name for column in champion if column.name in taken]:
        # Rows without names would get wrong predictions.
        faults.append("its columns stand in another order")
    if faults:
        return GateResult("signature", False, "; ".join(faults))
    return GateResult("signature", True, f"{len(candidate)} columns take what clients send")


def _names(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)


def predictions_gate(recorded: Mapping[str, Any], given: Mapping[str, Any]) -> GateResult:
    """Pass if a clean process reproduces the predictions recorded at registration.

    Parameters
    ----------
    recorded, given
        `predictions`, shape (rows,), and `probabilities`, shape (rows, classes) or None. Classes
        must be equal, probabilities within 1e-6: another processor may round differently.
    """
    expected, found = list(recorded["predictions"]), list(given["predictions"])
    different = [i for i, (a, b) in enumerate(zip(expected, found, strict=False)) if a != b]
    if len(expected) != len(found) or different:
        row = different[0] if different else min(len(expected), len(found))
        return GateResult(
            "predictions", False, f"row {row} of the input example is not predicted as recorded"
        )
    if recorded.get("probabilities") is not None and given.get("probabilities") is not None:
        gap = float(np.max(np.abs(np.subtract(recorded["probabilities"], given["probabilities"]))))
        if not gap <= 1e-6:
            return GateResult("predictions", False, f"a probability differs by {gap:.2g} from recorded")
    return GateResult("predictions", True, f"{len(found)} rows predicted as recorded")


def thresholds_gate(
    metrics: Mapping[str, float],
    minimum: Mapping[str, float],
    maximum: Mapping[str, float],
    failed_thresholds: Callable[[Mapping[str, float], Mapping[str, float], Mapping[str, float]], list[str]],
) -> GateResult:
    """Pass if every metric on the holdout reaches its threshold.

    Parameters
    ----------
    metrics
        By name; `recall` is the lowest of all classes.
    minimum, maximum
        Thresholds by metric name.
    failed_thresholds
        Returns the names of the metrics that miss their thresholds.
    """
    thresholds = [(name, "least", limit) for name, limit in minimum.items()]
    thresholds += [(name, "most", limit) for name, limit in maximum.items()]
    unknown = sorted({name for name, _, _ in thresholds} - set(metrics))
    if unknown:
        known = ", ".join(sorted(metrics))
        return GateResult("thresholds", False, f"no metric {unknown[0]!r}; there are: {known}")
    missed = failed_thresholds(metrics, minimum, maximum)
    shown = "; ".join(
        f"{name} {metrics[name]:.4f}, at {which} {limit:g} required"
        for name, which, limit in thresholds
        if name in missed or not missed
    )
    return GateResult("thresholds", not missed, shown, {name: metrics[name] for name, _, _ in thresholds})


def clean_holdout_gate(
    holdout: npt.NDArray[np.uint64], training: npt.NDArray[np.uint64], duplicates: npt.NDArray[np.uint64]
) -> GateResult:
    """Pass if no training row stands in the holdout.

    Parameters
    ----------
    holdout, training
        Row hashes, shape (rows,).
    duplicates
        The rows that stand in the table itself more than once, and how often, shape (rows, 2).
        Such a row may stand on both sides, as often together as in the table. These are
        reported, and do not refuse.
    """
    shared, held_out = np.unique(holdout[np.isin(holdout, training)], return_counts=True)
    ordered = np.sort(training)
    trained = np.searchsorted(ordered, shared, "right") - np.searchsorted(ordered, shared, "left")
    known = dict(duplicates.tolist())
    in_table = np.array([known.get(row, 1) for row in shared.tolist()], dtype=np.int64)
    leaked = int(np.clip(trained + held_out - in_table, 0, held_out).sum())
    allowed = int(held_out.sum()) - leaked
    metrics = {"shared_rows": leaked, "duplicate_rows": allowed}
    note = f"; {allowed} exact copies of training rows, as in the table" if allowed else ""
    if leaked:
        return GateResult(
            "clean_holdout",
            False,
            f"{leaked} of {len(holdout)} rows were trained on{note}; hold out others",
            metrics,
        )
    return GateResult("clean_holdout", True, f"{len(holdout)} rows, none of them trained on{note}", metrics)


def champion_gate(compared: PairedComparison, rule: str, margin: float, excluded: int | None) -> GateResult:
    """Pass if the candidate is good enough beside the champion, by one of `RULES`.

    Parameters
    ----------
    compared
        Both on the candidate's holdout, without the rows that either was trained on.
    rule
        `not-worse`: the observed difference is at least -margin, and not significantly below zero.
        `non-inferior`: the lower bound of the difference lies above -margin, on rows enough that
        an unlucky sample would have shown one. `better`: significantly better.
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
        if c.rows >= minimum_rows(margin) and c.bound > -margin:
            return result(True, bound)
        needed = rows_needed(c, margin)
        few = f"; too few rows to show it: {needed} would do" if c.rows < needed else ""
        return result(False, bound + few)
    if c.difference < -margin:
        return result(False, f"more than the margin of {margin} below")
    passed = c.p_worse >= SIGNIFICANCE
    return result(passed, f"within the margin of {margin}" if passed else "significantly worse")


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


def latency_gate(milliseconds: Sequence[float], most: float) -> GateResult:
    """Pass if the median time to predict one row is at most `most` milliseconds."""
    median = float(np.median(milliseconds))
    return GateResult(
        "latency",
        median <= most,
        f"{median:.2f} ms for one row (median of {len(milliseconds)}), at most {most:g} required",
        {"latency_ms": median},
    )
