"""Draw the figures of a training run with matplotlib, from plain arrays and dicts.

`plot_data` computes the values, and `save_plots` writes the figures to files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# With more classes, the cells of the confusion matrix are too small for numbers.
_NUMBERED = 12


def confusion_matrix(found: Mapping[str, Any]) -> Figure:
    """Draw the confusion matrix of the holdout.

    Parameters
    ----------
    found
        The result of `plot_data.confusions`.
    """
    names, counts = [_short(name) for name in found["classes"]], np.array(found["counts"])
    side = min(3.2 + 0.6 * len(names), 12.0)
    title = "Held-out rows by true and predicted class"
    figure, axes = _axes(side + 0.4, side, title, xlabel="predicted", ylabel="true")
    # Colours show shares of the true class: as counts, the errors of a rare class would be invisible.
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), labels=names, rotation=30, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), labels=names)
    if len(names) > _NUMBERED:
        figure.colorbar(image, label="share of the true class", shrink=0.8)
        return figure
    for (true, predicted), count in np.ndenumerate(counts):
        color = "white" if shares[true, predicted] > 0.5 else "black"
        axes.text(predicted, true, str(count), ha="center", va="center", color=color)
    return figure


def _axes(width: float, height: float, title: str, **properties: Any) -> tuple[Figure, Axes]:
    """Return a figure of one panel, with the properties of its axes such as `xlabel`."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set(title=title, **properties)
    return figure, axes


def _short(name: str) -> str:
    return name if len(name) <= 20 else name[:19] + "…"


# The palette of Okabe and Ito, which colour-blind readers can distinguish; black is used for axes.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
_CURVES = cycler(linestyle=("-", "--", "-.", ":")) * cycler(color=_COLORS)
_MOST_CURVES = 12
_MOST_COLUMNS = 20


def roc_and_precision_recall(curves: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draw the ROC curve and the precision-recall curve of each class, with their areas.

    Parameters
    ----------
    curves
        The result of `plot_data.one_against_the_rest`. At most 12 classes are drawn, the ones with
        the most rows.
    """
    shown = sorted(curves, key=lambda name: -curves[name]["rows"])[:_MOST_CURVES]
    figure = Figure(figsize=(9.6, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, kind, area in ((left, "roc", "roc_auc"), (right, "precision_recall", "average_precision")):
        axes.set_prop_cycle(_CURVES)
        for name in sorted(shown, key=list(curves).index):
            label = f"{_short(name)}  {curves[name][area]:.3f}"
            axes.plot(*curves[name][kind].values(), label=label, linewidth=1.8)
    left.plot([0, 1], [0, 1], color="#999999", linewidth=0.8)
    left.set(title="ROC, area", xlabel="false positive rate", ylabel="true positive rate")
    right.set(title="Precision and recall, average precision", xlabel="recall", ylabel="precision")
    for axes, corner in ((left, "lower right"), (right, "lower left")):
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.04))
        axes.legend(loc=corner, fontsize="small", frameon=False)
    return figure


def reliability(found: Mapping[str, Any]) -> Figure:
    """Draw the accuracy by predicted probability (reliability diagram).

    Parameters
    ----------
    found
        The result of `plot_data.reliability`.
    """
    title = f"Reliability, calibration error {found['expected_calibration_error']:.3f}"
    figure, axes = _axes(5.2, 4.8, title, xlim=(-0.02, 1.02), ylim=(-0.02, 1.06))
    axes.set(xlabel="probability of the likeliest class", ylabel="share that was correct")
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.8)
    bins = pd.DataFrame(found["bins"])
    axes.plot(bins["confidence"], bins["accuracy"], color=_COLORS[0], marker="o", linewidth=1.8)
    for x, y, rows in zip(bins["confidence"], bins["accuracy"], bins["rows"], strict=True):
        place = (0, 7 if y < 0.9 else -14)
        axes.annotate(f"{rows}", (x, y), place, textcoords="offset points", ha="center", fontsize="small")
    return figure


def residuals(found: Mapping[str, Sequence[float]]) -> Figure:
    """Draw the residual of each row by its predicted number.

    Parameters
    ----------
    found
        The result of `plot_data.errors`.
    """
    title, ylabel = "Residuals", "true minus predicted"
    return _scatter(found["predicted"], found["residual"], 0, title, "predicted", ylabel)


def predicted_against_true(found: Mapping[str, Sequence[float]]) -> Figure:
    """Draw the predicted number of each row by its true number; `found` is as for `residuals`."""
    return _scatter(found["true"], found["predicted"], 1, "Predicted against true", "true", "predicted")


def _scatter(
    x: Sequence[float], y: Sequence[float], slope: int, title: str, xlabel: str, ylabel: str
) -> Figure:
    """Draw points, and the line through zero with this slope on which a perfect model has them."""
    figure, axes = _axes(5.6, 4.8, f"{title}, {len(x)} held-out rows", xlabel=xlabel, ylabel=ylabel)
    axes.axline((x[0], slope * x[0]), slope=slope, color="#999999", linewidth=0.8)
    axes.scatter(x, y, s=14, alpha=0.6, color=_COLORS[0], linewidths=0)
    return figure


def importance(entries: Sequence[Mapping[str, Any]], name: str = "accuracy", rises: bool = False) -> Figure:
    """Draw the permutation importance of the columns, largest first.

    Parameters
    ----------
    entries
        The result of `plot_data.importance`. At most 20 columns are drawn.
    name, rises
        The metric, and whether it rises if the model gets worse.
    """
    shown = pd.DataFrame(entries[:_MOST_COLUMNS][::-1])
    title, change = "Permutation importance on the holdout", "added" if rises else "lost"
    figure, axes = _axes(6.4, 1.4 + 0.34 * len(shown), title, xlabel=f"{name} {change} by shuffling")
    names = shown["column"].map(_short)
    axes.barh(names, shown["mean"], xerr=shown["std"], color=_COLORS[0], ecolor="#444444")
    axes.axvline(0, color="black", linewidth=0.8)
    return figure


def partial_dependence(found: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the mean prediction by the value of each column.

    Parameters
    ----------
    found
        The result of `plot_data.partial_dependence`.
    """
    figure = Figure(figsize=(3.2 * len(found), 3.8), layout="constrained")
    panels = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
    for axes, entry in zip(panels, found, strict=True):
        x = values = entry["values"]
        if not all(type(value) in (int, float) for value in values):
            x = range(len(values))
            labelled = x[:: 1 + len(x) // 6]
            labels = [_short(str(values[place])) for place in labelled]
            axes.set_xticks(labelled, labels=labels, rotation=30, ha="right", rotation_mode="anchor")
        axes.set_prop_cycle(color=_COLORS)
        for name, means in entry["mean"].items():
            axes.plot(x, means, ".-", label=_short(name))
        axes.set_xlabel(_short(entry["column"]))
    panels[0].set_ylabel("mean prediction" if "prediction" in found[0]["mean"] else "mean probability")
    panels[-1].legend(fontsize="small", frameon=False)
    figure.suptitle("Partial dependence on the most important columns")
    return figure


def learning_curve(points: Sequence[Mapping[str, Any]], name: str = "accuracy") -> Figure:
    """Draw the metric on training rows and holdout by the number of training rows.

    Parameters
    ----------
    points
        The result of `plot_data.learning_curve`.
    name
        The metric.
    """
    figure, axes = _axes(6.4, 4.4, "Learning curve", xlabel="rows trained on", ylabel=name)
    rows = [point["rows"] for point in points]
    for part, color, style in (("training", _COLORS[0], "s--"), ("holdout", _COLORS[1], "o-")):
        axes.plot(rows, [point[part] for point in points], style, color=color, label=f"{part} rows")
    axes.legend(frameon=False)
    return figure
