"""The gates that compare a measured value with a limit: metrics, latency and size of the files."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

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
    for name in sorted({name for name, _, _ in thresholds}):
        if name not in metrics:
            known = ", ".join(sorted(metrics))
            return GateResult("thresholds", False, f"no metric {name!r}; the metrics are: {known}")
        if not math.isfinite(metrics[name]):
            return GateResult("thresholds", False, f"{name} is {metrics[name]} on these rows")
    missed = failed_thresholds(metrics, minimum, maximum)
    shown = "; ".join(
        f"{name} {metrics[name]:.4f}, at {which} {limit:g} required"
        for name, which, limit in thresholds
        if name in missed or not missed
    )
    return GateResult("thresholds", not missed, shown, {name: metrics[name] for name, _, _ in thresholds})


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
