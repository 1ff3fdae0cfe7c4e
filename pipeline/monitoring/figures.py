"""The reference and the rows of now, drawn beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.monitoring.analysis import Analysis, Feature
from pipeline.monitoring.window import Window
from pipeline.training.baseline import Numbers, TrainingBaseline

MOST = 12  # features in one picture
_COLUMNS, _BINS, _CATEGORIES = 3, 20, 8
_THEN, _NOW = "#0072B2", "#D55E00"


def features(baseline: TrainingBaseline, window: Window, shown: Sequence[Feature]) -> Figure:
    """Draw features, then and now, each in a panel.

    Parameters
    ----------
    baseline, window
        Then and now.
    shown
        Which.
    """
    rows = -(-len(shown) // _COLUMNS)
    columns = min(_COLUMNS, len(shown))
    figure = Figure(figsize=(4 * columns, 2.8 * rows), layout="constrained")
    for place, feature in enumerate(shown):
        axes = figure.add_subplot(rows, columns, place + 1)
        profile = baseline.columns[feature.name]
        if isinstance(profile, Numbers):
            before = baseline.sample[feature.name].to_numpy(float, na_value=np.nan)
            _histograms(axes, before[np.isfinite(before)], window.numbers(feature.name))
        else:
            _bars(axes, profile.counts, window.counts(feature.name, profile.is_boolean)[0])
        axes.set_title(f"{_shown(feature.name, 40)}, PSI {feature.psi:.2f}", fontsize=10)
    figure.legend(["reference", "now"], loc="outside upper right", ncols=2)
    return figure


def _shown(name: str, most: int) -> str:
    """Return a name as it stands, shortened: a dollar sign would begin a formula."""
    return (name if len(name) <= most else name[: most - 1] + "…").replace("$", r"\$")


def _histograms(axes: Axes, before: np.ndarray, now: np.ndarray) -> None:
    now = now[np.isfinite(now)]
    both = np.concatenate([before, now])
    if not len(both):
        return
    low, high = np.quantile(both, [0.002, 0.998])
    edges = np.linspace(low, high if high > low else low + 1, _BINS + 1)
    for values, color in ((before, _THEN), (now, _NOW)):
        weights = np.full(len(values), 1 / max(len(values), 1))
        inside = np.clip(values, edges[0], edges[-1])
        axes.hist(inside, edges.tolist(), weights=weights, color=color, alpha=0.55)
    axes.set_ylabel("share of rows", fontsize=8)


def _bars(axes: Axes, before: Mapping[str, int], now: Mapping[str, int]) -> None:
    total = {name: before.get(name, 0) + now.get(name, 0) for name in {*before, *now}}
    names = sorted(total, key=lambda name: (-total[name], name))[:_CATEGORIES]
    places = np.arange(len(names))
    for counts, color, shift in ((before, _THEN, -0.2), (now, _NOW, 0.2)):
        whole = max(sum(counts.values()), 1)
        shares = [counts.get(name, 0) / whole for name in names]
        axes.bar(places + shift, shares, width=0.4, color=color)
    labels = [_shown(name, 14) for name in names]
    axes.set_xticks(places, labels, rotation=30, ha="right", fontsize=8)
    axes.set_ylabel("share of rows", fontsize=8)


def predictions(analysis: Analysis) -> Figure:
    """Draw the answers to the holdout, and those of now."""
    figure = Figure(figsize=(5, 3), layout="constrained")
    axes = figure.add_subplot()
    _bars(axes, analysis.predictions_before, analysis.predictions)
    axes.set_title("predictions", fontsize=10)
    figure.legend(["holdout", "now"], loc="outside upper right", ncols=2)
    return figure


def over_time(shown: Sequence[Feature]) -> Figure:
    """Draw the PSI of features over equal parts of the window, in the order of the rows."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.add_subplot()
    for place, feature in enumerate(shown):
        parts = np.arange(1, len(feature.psi_over_time) + 1)
        style = ("-", "--", "-.", ":")[place % 4]
        axes.plot(parts, feature.psi_over_time, style, marker="o", label=_shown(feature.name, 30))
    axes.set(xlabel="part of the window", ylabel="PSI", ylim=(0, None))
    axes.set_xticks(parts)
    axes.legend(fontsize=8)
    return figure
