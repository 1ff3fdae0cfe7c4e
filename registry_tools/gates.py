"""The checks between a candidate and a stage: plain values in, one result a gate out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from registry_tools.comparison import SIGNIFICANCE, Comparison, rows_to_show
from registry_tools.signature import Column

RULES = ("not-worse", "non-inferior", "better")
# With fewer rows than this a comparison says nothing, whatever it comes out as.
FEWEST_ROWS = 20

# What a client that sends the first type may be answered with the second.
_WIDER = {
    "integer": {"integer", "long", "double"},
    "long": {"long", "double"},
    "float": {"float", "double"},
}


@dataclass(frozen=True)
class GateResult:
    """What one gate found: passed or not, in one line, with its figures."""

    gate: str
    passed: bool
    message: str
    figures: Mapping[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        return {
            "gate": self.gate,
            "passed": self.passed,
            "message": self.message,
            "figures": dict(self.figures),
        }


@dataclass(frozen=True)
class Verdict:
    """All gates of one promotion."""

    gates: tuple[GateResult, ...]

    @property
    def passed(self) -> bool:
        """Whether every gate passed."""
        return all(gate.passed for gate in self.gates)

    @property
    def refusals(self) -> tuple[GateResult, ...]:
        """The gates that did not pass."""
        return tuple(gate for gate in self.gates if not gate.passed)

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        return {"passed": self.passed, "gates": [gate.as_dict() for gate in self.gates]}


def integrity_gate(
    faults: Sequence[str], files: int, has_manifest: bool = True, public_key: str | None = None
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
    candidate: Sequence[Column] | None, champion: Sequence[Column] | None
) -> GateResult:
    """Pass if the candidate has a signature, and takes what the champion's clients send."""
    if candidate is None:
        return GateResult(
            "signature", False, "the candidate has no signature that names and types its columns"
        )
    if champion is None:
        return GateResult("signature", True, f"{len(candidate)} columns, no champion to fit")
    sent = {column.name: column for column in champion}
    faults = []
    for column in candidate:
        before = sent.get(column.name)
        if before is None:
            if column.required:
                faults.append(f"new required column {column.name!r}")
        elif column.type not in _WIDER.get(before.type, {before.type}):
            faults.append(f"column {column.name!r} was {before.type}, is {column.type}")
        elif column.required and not before.required:
            faults.append(f"column {column.name!r} was optional, is required")
    if faults:
        gone = sorted(set(sent) - {column.name for column in candidate})
        if gone:
            faults.append(f"no longer taken: {', '.join(repr(name) for name in gone)}")
        return GateResult("signature", False, "; ".join(faults))
    return GateResult("signature", True, f"{len(candidate)} columns take what clients send")


def answers_gate(recorded: Mapping[str, Any], given: Mapping[str, Any]) -> GateResult:
    """Pass if a clean process answered the input example as was recorded at registration.

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
            "answers", False, f"row {row} of the input example is not answered as was recorded"
        )
    if recorded.get("probabilities") is not None and given.get("probabilities") is not None:
        gap = float(np.max(np.abs(np.subtract(recorded["probabilities"], given["probabilities"]))))
        if not gap <= 1e-6:
            return GateResult("answers", False, f"a probability differs by {gap:.2g} from recorded")
    return GateResult("answers", True, f"{len(found)} rows answered as recorded")


def thresholds_gate(
    figures: Mapping[str, float],
    minimum: Mapping[str, float],
    maximum: Mapping[str, float],
    failing: Callable[[Mapping[str, float], Mapping[str, float], Mapping[str, float]], list[str]],
) -> GateResult:
    """Pass if every figure on the holdout reaches its threshold.

    Parameters
    ----------
    figures
        By metric name; `recall` is the lowest of all classes.
    minimum, maximum
        Thresholds by metric name.
    failing
        The judge of thresholds: returns the names of the metrics that miss theirs.
    """
    asked = {**minimum, **maximum}
    unknown = sorted(set(asked) - set(figures))
    if unknown:
        known = ", ".join(sorted(figures))
        return GateResult("thresholds", False, f"no metric {unknown[0]!r}; there are: {known}")
    missed = failing(figures, minimum, maximum)
    shown = "; ".join(
        f"{name} {figures[name]:.4f}, at {'least' if name in minimum else 'most'} {wanted:g} asked"
        for name, wanted in asked.items()
        if name in missed or not missed
    )
    return GateResult("thresholds", not missed, shown, {name: figures[name] for name in asked})


def clean_holdout_gate(
    holdout: npt.NDArray[np.uint64], training: npt.NDArray[np.uint64], duplicates: int
) -> GateResult:
    """Pass if no training row stands in the holdout.

    Parameters
    ----------
    holdout, training
        Row hashes, shape (rows,).
    duplicates
        How many rows of the holdout had an exact copy on the training side in the table itself,
        counted when it was split. These are said, and do not refuse.
    """
    shared = int(np.isin(holdout, training).sum())
    leaked = max(shared - duplicates, 0)
    figures = {"shared_rows": shared, "duplicate_rows": min(shared, duplicates)}
    if leaked:
        return GateResult(
            "clean_holdout",
            False,
            f"{leaked} of {len(holdout)} held-out rows were trained on; hold out again",
            figures,
        )
    twice = f"; {shared} are exact duplicates of training rows" if shared else ""
    return GateResult(
        "clean_holdout", True, f"{len(holdout)} rows, none of them trained on{twice}", figures
    )


def champion_gate(compared: Comparison, rule: str, margin: float, excluded: int) -> GateResult:
    """Pass if the candidate is good enough beside the champion, by one of `RULES`.

    Parameters
    ----------
    compared
        Both on the candidate's holdout, without the rows that the champion was trained on.
    rule
        `not-worse`: the observed difference is at least -margin, and not significantly below zero.
        `non-inferior`: the lower bound of the difference lies above -margin, on rows enough to
        show it. `better`: significantly better.
    margin
        A difference in accuracy that does not matter, in (0, 1).
    excluded
        How many rows were left out because the champion was trained on them.
    """
    c = compared
    left_out = f", {excluded} left out that the champion was trained on" if excluded else ""
    shown = (
        f"{c.candidate_accuracy:.4f} against {c.champion_accuracy:.4f} on {c.rows} rows{left_out}: "
        f"difference {c.difference:+.4f} [{c.low:+.4f}, {c.high:+.4f}]"
    )
    figures = {**c.figures(), "excluded_rows": float(excluded)}

    def result(passed: bool, why: str) -> GateResult:
        # SciPy's comparisons are NumPy's booleans, which JSON does not know.
        return GateResult("champion", bool(passed), f"{rule}: {shown}, {why}", figures)

    if rule == "better":
        return result(c.p_better < SIGNIFICANCE, f"p(better) = {c.p_better:.3g}")
    if rule == "non-inferior":
        needed = rows_to_show(c, margin)
        if c.rows < needed:
            return result(False, f"too few rows to show it within {margin}: {needed} would do")
        return result(c.bound > -margin, f"lower bound {c.bound:+.4f}, margin {margin}")
    if c.difference < -margin:
        return result(False, f"more than the margin of {margin} below")
    return result(c.p_worse >= SIGNIFICANCE, f"p(worse) = {c.p_worse:.3g}")


def too_few_rows(left: int, excluded: int) -> GateResult | None:
    """Return the refusal of a comparison on hardly any rows, or None if there are enough."""
    if left >= FEWEST_ROWS:
        return None
    return GateResult(
        "champion",
        False,
        f"{left} held-out rows are left, {FEWEST_ROWS} are needed: the champion was trained on "
        f"{excluded} others; train with the champion's split, or with split=hash, or give "
        "--eval-data FILE --target COLUMN",
        {"rows": float(left), "excluded_rows": float(excluded)},
    )


def latency_gate(milliseconds: Sequence[float], most: float) -> GateResult:
    """Pass if the median time to answer one row is at most `most` milliseconds."""
    median = float(np.median(milliseconds))
    return GateResult(
        "latency",
        median <= most,
        f"{median:.2f} ms for one row (median of {len(milliseconds)}), at most {most:g} asked",
        {"latency_ms": median},
    )
