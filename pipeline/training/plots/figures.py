"""Draw the figures of a training run with matplotlib, from plain arrays and dicts.

`plot_data` computes the values, and `save_plots` writes the figures to files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

# With more classes, the cells of the confusion matrix are too small for numbers.
_NUMBERED = 12


def confusion_matrix(counts: npt.NDArray[np.int64], target_names: Sequence[str]) -> Figure:
    """Draw the confusion matrix of the holdout.

    Parameters
    ----------
    counts
        Holdout rows, shape (true classes, predicted classes).
    target_names
        The class names, in the order of `counts`.
    """
    classes = len(target_names)
    side = min(3.2 + 0.6 * classes, 12.0)
    figure = Figure(figsize=(side + 0.4, side), layout="tight")
    axes = figure.add_subplot()
    # Colours show shares of the true class: as counts, the errors of a rare class would be invisible.
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true", title="Held-out rows by true and predicted class")
    names = [_short(name) for name in target_names]
    axes.set_xticks(range(classes), labels=names, rotation=30, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(classes), labels=names)
    if classes > _NUMBERED:
        figure.colorbar(image, label="share of the true class", shrink=0.8)
        return figure
    for true, predicted in np.ndindex(classes, classes):
        color = "white" if shares[true, predicted] > 0.5 else "black"
        count = str(counts[true, predicted])
        axes.text(predicted, true, count, ha="center", va="center", color=color)
    return figure


def _short(name: str) -> str:
    return name if len(name) <= 20 else name[:19] + "…"


# The palette of Okabe and Ito, which colour-blind readers can distinguish; black is used for axes.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
_STYLES = ("-", "--", "-.", ":")
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
    panels = (left, "roc", "roc_auc"), (right, "precision_recall", "average_precision")
    for place, name in enumerate(sorted(shown, key=list(curves).index)):
        for axes, kind, area in panels:
            x, y = curves[name][kind].values()
            axes.plot(
                x,
                y,
                label=f"{_short(name)}  {curves[name][area]:.3f}",
                color=_COLORS[place % len(_COLORS)],
                linestyle=_STYLES[place // len(_COLORS) % len(_STYLES)],
                linewidth=1.8,
            )
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
    bins = found["bins"]
    figure = Figure(figsize=(5.2, 4.8), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.8)
    points = [(each["confidence"], each["accuracy"]) for each in bins]
    axes.plot(*zip(*points, strict=True), color=_COLORS[0], marker="o", linewidth=1.8)
    for each, point in zip(bins, points, strict=True):
        place = (0, 7 if each["accuracy"] < 0.9 else -14)
        axes.annotate(
            str(each["rows"]), point, place, textcoords="offset points", ha="center", fontsize="small"
        )
    axes.set(
        title=f"Reliability, calibration error {found['expected_calibration_error']:.3f}",
        xlabel="probability of the likeliest class", ylabel="share that was correct",
        xlim=(-0.02, 1.02), ylim=(-0.02, 1.06),
    )  # fmt: skip
    return figure


def residuals(found: Mapping[str, Sequence[float]]) -> Figure:
    """Draw the residual of each row by its predicted number.

    Parameters
    ----------
    found
        The result of `plot_data.errors`.
    """
    return _scatter(
        found["predicted"], found["residual"], (0, 0), "Residuals", ("predicted", "true minus predicted")
    )


def predicted_against_true(found: Mapping[str, Sequence[float]]) -> Figure:
    """Draw the predicted number of each row by its true number; `found` is as for `residuals`."""
    title = "Predicted against true"
    return _scatter(found["true"], found["predicted"], (0, 1), title, ("true", "predicted"))


def _scatter(
    x: Sequence[float], y: Sequence[float], line: tuple[float, float], title: str, names: tuple[str, str]
) -> Figure:
    """Draw points, and the line with this intercept and slope on which a perfect model has them."""
    figure = Figure(figsize=(5.6, 4.8), layout="constrained")
    axes = figure.add_subplot()
    axes.axline((x[0], line[0] + line[1] * x[0]), slope=line[1], color="#999999", linewidth=0.8)
    axes.scatter(x, y, s=14, alpha=0.6, color=_COLORS[0], linewidths=0)
    axes.set(title=f"{title}, {len(x)} held-out rows", xlabel=names[0], ylabel=names[1])
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
    shown = entries[:_MOST_COLUMNS][::-1]
    figure = Figure(figsize=(6.4, 1.4 + 0.34 * len(shown)), layout="constrained")
    axes = figure.add_subplot()
    axes.barh(
        [_short(entry["column"]) for entry in shown],
        [entry["mean"] for entry in shown],
        xerr=[entry["std"] for entry in shown],
        color=_COLORS[0],
        ecolor="#444444",
    )
    axes.axvline(0, color="black", linewidth=0.8)
    change = "added" if rises else "lost"
    axes.set(title="Permutation importance on the holdout", xlabel=f"{name} {change} by shuffling")
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
        for color, (name, means) in zip(_COLORS, entry["mean"].items(), strict=False):
            axes.plot(x, means, ".-", color=color, label=_short(name))
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
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.add_subplot()
    rows = [point["rows"] for point in points]
    for part, color, style in (("training", _COLORS[0], "s--"), ("holdout", _COLORS[1], "o-")):
        axes.plot(rows, [point[part] for point in points], style, color=color, label=f"{part} rows")
    axes.set(title="Learning curve", xlabel="rows trained on", ylabel=name)
    axes.legend(frameon=False)
    return figure
