"""Pictures of a training run, drawn from plain arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

# With more classes than this the cells are too small for their numbers.
_NUMBERED = 12


def confusion_matrix(counts: npt.NDArray[np.int64], target_names: Sequence[str]) -> Figure:
    """Draw how often each class was taken for each other.

    Parameters
    ----------
    counts
        Rows of the holdout, shape (true class, predicted class).
    target_names
        The class names, in the order of `counts`.
    """
    classes = len(target_names)
    side = min(3.2 + 0.6 * classes, 12.0)
    figure = Figure(figsize=(side + 0.4, side), layout="tight")
    axes = figure.add_subplot()
    # Shares of the true class: a rare class must not look right because it is pale.
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
