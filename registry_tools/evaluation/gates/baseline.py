"""The gate `baseline`, which compares a candidate with constant predictions."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from registry_tools.evaluation.gates.comparison import undefined
from registry_tools.evaluation.verdict import GateResult
from registry_tools.stats.intervals import SIGNIFICANCE
from registry_tools.stats.metric import Metric, Outcomes, find_metric
from registry_tools.stats.metric_difference import MetricDifference
from registry_tools.stats.paired_metric import compare_by
from registry_tools.task import REGRESSION

# The smallest number of discordant rows, all in favour of the candidate, at which the one-sided exact
# McNemar test is significant.
_FEWEST_GAINS = math.floor(math.log2(1 / SIGNIFICANCE)) + 1
_FIX = "give more rows with --eval-data FILE --target COLUMN, or --no-baseline --reason TEXT"


def baseline_gate(metric: Metric, candidate: Outcomes) -> GateResult:
    """Pass if the candidate is significantly better than constant predictions, at 5%.

    Parameters
    ----------
    metric
        The metric to compare by. The recall of a class is 1 for a constant prediction of the class, so
        `recall:CLASS` compares by balanced accuracy.
    candidate
        Rows that the candidate was not trained on, with its predictions.
    """
    if not len(candidate.labels):
        return GateResult("baseline", False, f"there are no rows to evaluate on; {_FIX}")
    if metric.name.startswith("recall:"):
        metric = find_metric("balanced_accuracy", metric.task)
    constant, title = constant_predictions(metric, candidate)
    # With few rows, an unseen mistake of a forest, which predicts probabilities of 0, would decide alone.
    compared = compare_by(metric, candidate, constant, unseen_mistake=False)
    if compared is None:
        return undefined("baseline", metric.name, len(candidate.labels))
    c, passed = compared, compared.p_better < SIGNIFICANCE
    message = (
        f"{c.prefix}{c.candidate:{c.format}} against {c.champion:{c.format}} for always "
        f"{title} on {c.rows} rows: p(better) {c.p_better:.3g}"
    )
    value = "accuracy" if c.is_accuracy else "value"
    metrics = {
        "rows": float(c.rows),
        value: c.candidate,
        f"baseline_{value}": c.champion,
        "p_better": c.p_better,
    }
    return GateResult("baseline", passed, message + _reason(compared, title, passed), metrics)


def _reason(compared: MetricDifference, title: str, passed: bool) -> str:
    if passed:
        return "; significantly better"
    if compared.is_accuracy:
        others = compared.rows - round(compared.champion * compared.rows)
        if others < _FEWEST_GAINS:
            needed = f"{others} rows have a class other than {title}, and {_FEWEST_GAINS} are needed"
            return f"; too few rows to show it: {needed}; {_FIX}"
    if compared.gain > 0:
        return f"; not significantly better: train a better model, or {_FIX}"
    return "; no better: train a better model, or --no-baseline --reason TEXT"


def constant_predictions(metric: Metric, candidate: Outcomes) -> tuple[Outcomes, str]:
    """Return the best constant predictions for the labels by a metric, and their name in messages.

    They are the median of the labels, or their mean for a squared error; the commonest class, or the class
    whose precision is asked for, with the share of each class as its probability.
    """
    labels = candidate.labels
    if metric.task == REGRESSION:
        name = "median" if metric.name in {"mae", "median_absolute_error"} else "mean"
        value = float(np.median(labels) if name == "median" else np.mean(labels))
        return Outcomes(labels, np.full(len(labels), value)), f"the {name} {value:.5g}"
    names, counts = np.unique(labels.astype(str), return_counts=True)
    kind, _, of_class = metric.name.partition(":")
    constant = of_class if kind == "precision" else str(names[counts.argmax()])
    shares = np.array([np.mean(labels == name) for name in candidate.classes])
    return replace(
        candidate,
        predicted=np.full(len(labels), constant, dtype=object),
        probabilities=np.tile(shares, (len(labels), 1)),
    ), "the shares of the classes" if metric.needs_probabilities else repr(constant)
