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
    side = min(3.0 + 0.7 * classes, 12.0)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.add_subplot()
    # Shares of the true class: a rare class must not look right because it is pale.
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, label="share of the true class", shrink=0.8)
    axes.set(xlabel="predicted", ylabel="true", title="Confusion matrix, held-out rows")
    axes.set_xticks(range(classes), labels=[_short(n) for n in target_names], rotation=45)
    axes.set_yticks(range(classes), labels=[_short(n) for n in target_names])
    if classes <= _NUMBERED:
        for true in range(classes):
            for predicted in range(classes):
                color = "white" if shares[true, predicted] > 0.5 else "black"
                count = str(counts[true, predicted])
                axes.text(predicted, true, count, ha="center", va="center", color=color)
    return figure


def _short(name: str) -> str:
    return name if len(name) <= 20 else name[:19] + "…"
