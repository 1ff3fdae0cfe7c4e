"""Draw the figures of the monitoring report: the training baseline beside the current window."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.monitoring.analysis import Analysis, FeatureDrift
from pipeline.monitoring.data.window import CurrentWindow
from pipeline.training.baseline import NumericProfile, TrainingBaseline

MAX_FEATURES, _MAX_LINES = 12, 6  # features in the first figure, and in the figure over time
_COLUMNS, _BINS, _CATEGORIES = 3, 20, 8
_BASELINE_COLOR, _CURRENT_COLOR = "#0072B2", "#D55E00"


def draw_figures(
    analysis: Analysis, baseline: TrainingBaseline, window: CurrentWindow
) -> dict[str, tuple[str, bytes]]:
    """Return the title and the PNG bytes of each figure, by name.

    Parameters
    ----------
    analysis
        The analysis of a window with enough rows.
    baseline, window
        The training baseline and the current window.
    """
    shown = sorted(analysis.features, key=lambda feature: -feature.psi)[:MAX_FEATURES]
    some = f", the {len(shown)} with the largest PSI" if len(shown) < len(analysis.features) else ""
    drawn = {"features": (f"Features{some}", _draw_features(baseline, window, shown))} if shown else {}
    if analysis.predictions:
        drawn["predictions"] = ("Predictions", _draw_predictions(analysis, baseline, window))
    if shown and len(shown[0].psi_over_time) > 1:
        drawn["over_time"] = ("PSI over the window", _draw_psi_over_time(shown[:_MAX_LINES]))
    return {name: (title, _png(figure)) for name, (title, figure) in drawn.items()}


def _png(figure: Figure) -> bytes:
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # matplotlib draws a box for the letter
        figure.savefig(content, format="png", dpi=90)
    return content.getvalue()


def _draw_features(
    baseline: TrainingBaseline, window: CurrentWindow, shown: Sequence[FeatureDrift]
) -> Figure:
    """Draw the values of features, baseline and current window, with one panel for each feature."""
    rows = -(-len(shown) // _COLUMNS)
    columns = min(_COLUMNS, len(shown))
    figure = Figure(figsize=(4 * columns, 2.8 * rows), layout="constrained")
    for place, feature in enumerate(shown):
        axes = figure.add_subplot(rows, columns, place + 1)
        profile = baseline.columns[feature.name]
        current = window.column(feature.name, profile)
        if isinstance(profile, NumericProfile):
            _histograms(axes, baseline.sample_column(feature.name).to_numpy(), current.to_numpy())
        else:
            _bars(axes, profile.counts, current.value_counts().to_dict())
        axes.set_title(f"{_shown(feature.name, 40)}, PSI {feature.psi:.2f}", fontsize=10)
    figure.legend(["baseline", "current"], loc="outside upper right", ncols=2)
    return figure


def _shown(name: str, most: int) -> str:
    """Return a name with at most `most` characters; a dollar sign, which begins a formula, is escaped."""
    return (name if len(name) <= most else name[: most - 1] + "…").replace("$", r"\$")


def _histograms(axes: Axes, expected: np.ndarray, current: np.ndarray) -> None:
    expected, current = expected[np.isfinite(expected)], current[np.isfinite(current)]
    both = np.concatenate([expected, current])
    if not len(both):
        return
    low, high = np.quantile(both, [0.002, 0.998])
    edges = np.linspace(low, high if high > low else low + 1, _BINS + 1)
    for values, color in ((expected, _BASELINE_COLOR), (current, _CURRENT_COLOR)):
        weights = np.full(len(values), 1 / max(len(values), 1))
        inside = np.clip(values, edges[0], edges[-1])
        axes.hist(inside, edges.tolist(), weights=weights, color=color, alpha=0.55)
    axes.set_ylabel("share of rows", fontsize=8)


def _bars(axes: Axes, expected: Mapping[str, int], current: Mapping[str, int]) -> None:
    total = {name: expected.get(name, 0) + current.get(name, 0) for name in {*expected, *current}}
    names = sorted(total, key=lambda name: (-total[name], name))[:_CATEGORIES]
    places = np.arange(len(names))
    for counts, color, shift in ((expected, _BASELINE_COLOR, -0.2), (current, _CURRENT_COLOR, 0.2)):
        total_rows = max(sum(counts.values()), 1)
        shares = [counts.get(name, 0) / total_rows for name in names]
        axes.bar(places + shift, shares, width=0.4, color=color)
    labels = [_shown(name, 14) for name in names]
    axes.set_xticks(places, labels, rotation=30, ha="right", fontsize=8)
    axes.set_ylabel("share of rows", fontsize=8)


def _draw_predictions(analysis: Analysis, baseline: TrainingBaseline, window: CurrentWindow) -> Figure:
    """Draw the predicted classes or numbers, on the holdout and in the current window."""
    figure = Figure(figsize=(5, 3), layout="constrained")
    axes = figure.add_subplot()
    before, current = analysis.baseline_predictions, analysis.predictions
    if isinstance(before, Mapping) and isinstance(current, Mapping):
        _bars(axes, before, current)
    else:
        _histograms(axes, baseline.outcomes.predicted, window.predicted_numbers())
    axes.set_title("predictions", fontsize=10)
    figure.legend(["holdout", "current"], loc="outside upper right", ncols=2)
    return figure


def _draw_psi_over_time(shown: Sequence[FeatureDrift]) -> Figure:
    """Draw the PSI of each feature over equal parts of the window, in the order of the rows."""
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
