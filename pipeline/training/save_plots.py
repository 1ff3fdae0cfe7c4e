"""Write the plots of a run: each as a PNG file, and its values as a JSON file of the same name."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from pipeline.data.dataset import Dataset
from pipeline.training import figures, plot_data

_log = logging.getLogger(__name__)

# For a table with more values, the repeated fits and predictions would take longer than the training.
_MOST_CELLS = 200_000


def save_plots(
    folder: Path,
    build: Callable[[], Any],
    fitted: Any,
    training: Dataset,
    holdout: Dataset,
    counts: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.float64] | None,
    random_state: int,
) -> None:
    """Write all plots of a run into a folder.

    Parameters
    ----------
    folder
        The folder; it is created if it does not exist.
    build
        Returns an unfitted estimator, for the learning curve.
    fitted
        The fitted estimator of the run.
    training, holdout
        The training rows and the held-out rows.
    counts
        Holdout rows, shape (true classes, predicted classes).
    probabilities
        Predicted probabilities of the holdout, shape (rows, classes); None if the estimator has none.
    random_state
        The seed of the permutations and of the learning curve.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = training.target_names
    labels = holdout.labels.to_numpy()
    _save(
        folder / "confusion_matrix",
        figures.confusion_matrix(counts, names),
        {"classes": list(names), "counts": counts.tolist()},
    )
    if probabilities is not None:
        found = plot_data.one_against_the_rest(labels, probabilities, names)
        if found:
            figure = figures.roc_and_precision_recall(found)
            _save(folder / "roc_and_precision_recall", figure, found)
        calibration = plot_data.reliability(labels, probabilities)
        _save(folder / "reliability", figures.reliability(calibration), calibration)
    if training.features.size + holdout.features.size > _MOST_CELLS:
        _log.warning("permutation importance and learning curve are left out: the table is too large")
        return
    entries = plot_data.importance(fitted, holdout.features, holdout.labels, random_state)
    _save(folder / "permutation_importance", figures.importance(entries), entries)
    points = plot_data.learning_curve(
        build, fitted, (training.features, training.labels), (holdout.features, holdout.labels), random_state
    )
    if len(points) > 1:
        _save(folder / "learning_curve", figures.learning_curve(points), points)


def _save(path: Path, figure: Figure, values: Any) -> None:
    """Write a figure as PNG, at the resolution that the MLflow UI shows, and its values as JSON."""
    figure.savefig(path.with_suffix(".png"), dpi=110)
    path.with_suffix(".json").write_text(json.dumps(values, indent=1, sort_keys=True) + "\n")
