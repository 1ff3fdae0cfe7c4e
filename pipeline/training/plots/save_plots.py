"""Write the plots of a run: each as a PNG file, and its values as a JSON file of the same name."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from sklearn.pipeline import Pipeline

from pipeline.data.dataset import Dataset
from pipeline.data.folds import Rows
from pipeline.params.definitions import TrainParams
from pipeline.training.fit import FittedModel
from pipeline.training.fit_pipeline import fit_pipeline
from pipeline.training.plots import figures, plot_data
from pipeline.training.scoring import metric_of

_log = logging.getLogger(__name__)

# For a table with more values, the repeated fits and predictions would take longer than the training.
_MOST_CELLS = 200_000


def save_plots(
    folder: Path,
    params: TrainParams,
    dataset: Dataset,
    training: Dataset,
    holdout: Dataset,
    fitted: FittedModel,
) -> None:
    """Write all plots of a run into a folder.

    Parameters
    ----------
    folder
        The folder; it is created if it does not exist.
    params
        The resolved parameters of the training.
    dataset
        All rows. Their types and missing values decide the preparation of the learning curve.
    training, holdout
        The training rows and the held-out rows.
    fitted
        The model with its outcomes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if fitted.counts is None:
        found = plot_data.errors(fitted.outcomes)
        _save(folder / "residuals", figures.residuals(found), found)
        _save(folder / "predicted_against_true", figures.predicted_against_true(found), found)
    else:
        _save_class_plots(folder, holdout, fitted)
    if training.features.size + holdout.features.size > _MOST_CELLS:
        _log.warning("permutation importance and learning curve are left out: the table is too large")
        return
    metric, seed = metric_of(params), params.random_state
    names, parts = dataset.target_names, [(part.features, part.labels) for part in (training, holdout)]
    entries = plot_data.importance(fitted.estimator, *parts[1], seed, metric, names)
    figure = figures.importance(entries, metric.name, metric.less_is_better)
    _save(folder / "permutation_importance", figure, entries)

    def fit(rows: Rows) -> Pipeline:
        return fit_pipeline(params, dataset.features, training.take(rows))

    points = plot_data.learning_curve(fit, fitted.estimator, parts[0], parts[1], seed, metric, names)
    if len(points) > 1:
        _save(folder / "learning_curve", figures.learning_curve(points, metric.name), points)


def _save_class_plots(folder: Path, holdout: Dataset, fitted: FittedModel) -> None:
    names, counts, probabilities = holdout.target_names, fitted.counts, fitted.outcomes.probabilities
    assert counts is not None
    labels = holdout.labels.to_numpy()
    _save(
        folder / "confusion_matrix",
        figures.confusion_matrix(counts, names),
        {"classes": list(names), "counts": counts.tolist()},
    )
    if probabilities is None:
        return
    found = plot_data.one_against_the_rest(labels, probabilities, names)
    if found:
        figure = figures.roc_and_precision_recall(found)
        _save(folder / "roc_and_precision_recall", figure, found)
    calibration = plot_data.reliability(labels, probabilities)
    _save(folder / "reliability", figures.reliability(calibration), calibration)


def _save(path: Path, figure: Figure, values: Any) -> None:
    """Write a figure as PNG, at the resolution that the MLflow UI shows, and its values as JSON."""
    figure.savefig(path.with_suffix(".png"), dpi=110)
    path.with_suffix(".json").write_text(json.dumps(values, indent=1, sort_keys=True) + "\n")
