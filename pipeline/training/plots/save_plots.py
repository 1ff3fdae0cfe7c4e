"""Draw the plots of a run, and write the values of each as a JSON file."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from pipeline.training.fit import FittedModel
from pipeline.training.fit_pipeline import fit_pipeline
from pipeline.training.plots import figures, plot_data
from pipeline.training.scoring import metric_of
from registry_tools.task import REGRESSION

_log = logging.getLogger(__name__)

# For a table with more values, the repeated fits and predictions would take longer than the training.
_MOST_CELLS = 200_000
_MOST_DEPENDENCES = 4  # columns


def save_plots(folder: Path, fitted: FittedModel, show: Callable[[str, Figure], None]) -> dict[str, Any]:
    """Draw all plots of a run, and return their values by name.

    Parameters
    ----------
    folder
        Where to write the values; it is created if it does not exist.
    fitted
        The model of the run.
    show
        Called with the name and the figure of each plot.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for name, figure, values in _plots(fitted):
        show(name, figure)
        text = json.dumps(values, indent=1, sort_keys=True)
        (folder / f"{name}.json").write_text(text + "\n")
        found[name] = values
    return found


def _plots(fitted: FittedModel) -> Iterator[tuple[str, Figure, Any]]:
    """Yield the name, the figure and the values of each plot."""
    training, holdout, estimator = fitted.training, fitted.holdout, fitted.estimator
    outcomes = fitted.outcomes
    if fitted.params.task == REGRESSION:
        found = plot_data.errors(outcomes)
        yield "residuals", figures.residuals(found), found
        yield "predicted_against_true", figures.predicted_against_true(found), found
    else:
        confusions = plot_data.confusions(outcomes)
        yield "confusion_matrix", figures.confusion_matrix(confusions), confusions
    if outcomes.probabilities is not None:
        if curves := plot_data.one_against_the_rest(outcomes):
            yield "roc_and_precision_recall", figures.roc_and_precision_recall(curves), curves
        calibration = plot_data.reliability(outcomes)
        yield "reliability", figures.reliability(calibration), calibration
    if training.features.size + holdout.features.size > _MOST_CELLS:
        _log.warning("importance, partial dependence and learning curve are left out: the table is too large")
        return
    metric, seed = metric_of(fitted.params), fitted.params.random_state
    entries = plot_data.importance(estimator, holdout, metric, seed)
    yield "permutation_importance", figures.importance(entries, metric.name, metric.less_is_better), entries
    most_important = [entry["column"] for entry in entries[:_MOST_DEPENDENCES]]
    if dependence := plot_data.partial_dependence(estimator, training, most_important):
        yield "partial_dependence", figures.partial_dependence(dependence), dependence
    fit = functools.partial(fit_pipeline, fitted.params, fitted.dataset.features)
    points = plot_data.learning_curve(fit, estimator, training, holdout, metric, seed)
    if len(points) > 1:
        yield "learning_curve", figures.learning_curve(points, metric.name), points
