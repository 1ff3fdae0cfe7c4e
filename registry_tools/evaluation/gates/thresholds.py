"""The gates that compare a measured value with a limit: metrics, latency and size of the files."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from registry_tools.evaluation.verdict import GateResult


def thresholds_gate(
    metrics: Mapping[str, float],
    minimum: Mapping[str, float],
    maximum: Mapping[str, float],
    failed_thresholds: Callable[[Mapping[str, float], Mapping[str, float], Mapping[str, float]], list[str]],
) -> GateResult:
    """Pass if every metric on the holdout meets its threshold.

    Parameters
    ----------
    metrics
        The metrics by name; `recall` is the lowest recall of all classes.
    minimum, maximum
        The thresholds by metric name.
    failed_thresholds
        A function that returns the names of the metrics that miss their thresholds.
    """
    thresholds = [(name, "least", limit) for name, limit in minimum.items()]
    thresholds += [(name, "most", limit) for name, limit in maximum.items()]
    unknown = sorted({name for name, _, _ in thresholds} - set(metrics))
    if unknown:
        known = ", ".join(sorted(metrics))
        return GateResult("thresholds", False, f"no metric {unknown[0]!r}; the metrics are: {known}")
    undefined = [name for name, _, _ in thresholds if not math.isfinite(metrics[name])]
    if undefined:
        return GateResult("thresholds", False, f"{undefined[0]} is {metrics[undefined[0]]} on these rows")
    missed = failed_thresholds(metrics, minimum, maximum)
    shown = "; ".join(
        f"{name} {metrics[name]:.4f}, at {which} {limit:g} required"
        for name, which, limit in thresholds
        if name in missed or not missed
    )
    return GateResult("thresholds", not missed, shown, {name: metrics[name] for name, _, _ in thresholds})


def metrics_fault(
    probabilities: npt.NDArray[np.float64] | None, rows: int, classes: Sequence[str]
) -> str | None:
    """Return why no metrics can be computed from predictions; None if they can.

    Parameters
    ----------
    probabilities
        The model's probabilities, shape (rows, classes); None if it has none.
    rows
        The number of rows to compute metrics on.
    classes
        The names of all classes of the model and the labels.
    """
    if rows == 0:
        return "there are no rows to compute metrics on: give --eval-data FILE --target COLUMN"
    if len(classes) < 2:
        return f"the only class is {classes[0]!r}: metrics need rows of a second class"
    if probabilities is None:
        return None
    if probabilities.shape != (rows, len(classes)):
        return (
            f"the model gives probabilities of shape {probabilities.shape} for {rows} rows and "
            f"{len(classes)} classes"
        )
    return None


def latency_gate(milliseconds: Sequence[float], most: float) -> GateResult:
    """Pass if the median of the milliseconds to predict one row is at most `most`."""
    median = float(np.median(milliseconds))
    return GateResult(
        "latency",
        median <= most,
        f"{median:.2f} ms for one row (median of {len(milliseconds)}), at most {most:g} required",
        {"latency_ms": median},
    )


def latency_ratio_gate(candidate: Sequence[float], champion: Sequence[float], most: float) -> GateResult:
    """Pass if the candidate takes at most `most` times the champion's time for one row.

    Parameters
    ----------
    candidate, champion
        The milliseconds for the same row in the same process, measured in turns.
    most
        The largest allowed ratio of the medians.
    """
    own, other = float(np.median(candidate)), float(np.median(champion))
    ratio = own / other
    return GateResult(
        "latency_ratio",
        ratio <= most,
        f"{own:.2f} ms for one row, the champion {other:.2f} ms (medians of {len(candidate)}): "
        f"{ratio:.2f} times as long, at most {most:g} times allowed",
        {"latency_ratio": ratio, "latency_ms": own, "champion_latency_ms": other},
    )


def size_ratio_gate(candidate: int, champion: int, most: float) -> GateResult:
    """Pass if the candidate's files are at most `most` times as large as the champion's.

    Parameters
    ----------
    candidate, champion
        The bytes of all files of the model, at least 1.
    most
        The largest allowed ratio.
    """
    ratio = candidate / champion
    return GateResult(
        "size_ratio",
        ratio <= most,
        f"{candidate:,} bytes, the champion {champion:,}: {ratio:.2f} times as large, at most {most:g} "
        "times allowed",
        {"size_ratio": ratio, "bytes": float(candidate), "champion_bytes": float(champion)},
    )
