"""Compute all metrics of a model on held-out rows."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import log_loss, precision_recall_fscore_support, roc_auc_score

from registry_tools.errors import InputError
from registry_tools.stats.metric import METRICS, Outcomes, class_key, find_metric, metric_suffixes
from registry_tools.task import CLASSIFICATION


def classification_metrics(outcomes: Outcomes) -> dict[str, float]:
    """Return the metrics of a holdout by the names that runs log them under.

    Parameters
    ----------
    outcomes
        The holdout. Without probabilities, `log_loss` and `roc_auc` are left out.

    Notes
    -----
    `roc_auc` compares each class with the rest and is the mean over the classes. If the holdout lacks
    a class, it is undefined and left out. A class without predictions has precision 0.
    """
    code_of, probabilities = pd.Index(outcomes.classes), outcomes.probabilities
    labels, predicted = (code_of.get_indexer(names) for names in (outcomes.labels, outcomes.predicted))
    codes = np.arange(len(code_of))
    precision, recall, f1, rows = precision_recall_fscore_support(
        labels, predicted, labels=codes, zero_division=0
    )
    values = {
        "accuracy": np.mean(labels == predicted),
        # The mean over the classes of the holdout: the recall of any other class is undefined.
        "balanced_accuracy": recall[rows > 0].mean(),
        "f1_macro": f1.mean(),
    }
    if probabilities is not None:
        # XGBoost has probabilities of single precision, whose sums scikit-learn would warn of.
        exact = probabilities / probabilities.sum(axis=1, keepdims=True)
        values["log_loss"] = log_loss(labels, exact, labels=codes)
        if rows.all():
            scores = probabilities[:, 1] if len(codes) == 2 else probabilities
            values["roc_auc"] = roc_auc_score(labels, scores, multi_class="ovr")
    for code, name in enumerate(metric_suffixes(outcomes.classes)):
        values[class_key(name, "precision")] = precision[code]
        values[class_key(name, "recall")] = recall[code]
    return {name: float(value) for name, value in values.items()}


def threshold_metrics(outcomes: Outcomes, task: str, wanted: Collection[str]) -> dict[str, float]:
    """Return all metrics of a task that need no name of a class or function, and the wanted ones that do.

    A classification also has the metrics of each class, and `recall`, the lowest recall of all classes.

    Raises
    ------
    InputError
        If the function of a wanted metric fails.
    """
    values = {
        metric.name: metric.compute(outcomes)
        for metric in METRICS
        if metric.task == task and (outcomes.probabilities is not None or not metric.needs_probabilities)
    }
    if task == CLASSIFICATION:
        probabilities, classes = classes_of(outcomes)
        rows = Outcomes(outcomes.labels, outcomes.predicted, probabilities, tuple(classes))
        values |= classification_metrics(rows)
        values["recall"] = min(value for name, value in values.items() if name.endswith("/recall"))
    for name in wanted:
        with contextlib.suppress(InputError):  # an unknown metric; the gate lists the known ones
            metric = find_metric(name, task)
            if name not in values and not metric.needs_probabilities:
                values[name] = metric.compute(outcomes)
    return values


def classes_of(outcomes: Outcomes) -> tuple[npt.NDArray[np.float64] | None, Sequence[str]]:
    """Return the probabilities and their classes; if others occur, all classes without probabilities."""
    present = {*outcomes.labels.tolist(), *outcomes.predicted.tolist()}
    if present <= set(outcomes.classes):
        return outcomes.probabilities, outcomes.classes
    return None, sorted(present)
