"""Write the model card of a version, in Markdown: metrics, most frequent errors, data and parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from pipeline.data.dataset import Dataset
from pipeline.params.definitions import TrainParams
from pipeline.params.types import AUTO, as_text
from pipeline.training.fit import FittedModel
from pipeline.training.run_content import argument_texts
from pipeline.training.scoring import format_value, mean_key, metric_of, std_key
from registry_tools.stats.metric import Outcomes, find_metric, metric_key
from registry_tools.stats.metric_comparison import estimate_number_metric
from registry_tools.task import DEFAULT_METRICS, REGRESSION

_METRIC_LABELS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "f1_macro": "F1, mean of the classes",
    "roc_auc": "area under the ROC, mean of the classes",
    "average_precision": "average precision, mean of the classes",
    "log_loss": "log loss",
    "rmse": "root mean squared error",
    "mae": "mean absolute error",
    "median_absolute_error": "median absolute error",
    "r2": "R²",
}
_MAX_CONFUSIONS = 5  # confusions that the card lists
_MAX_COLUMNS = 30  # columns that the card lists; MLflow limits a description to 5000 characters
_MAX_TRIALS = 5  # trials of a sweep that the card lists


@dataclass(frozen=True)
class Trial:
    """A trial of a sweep: the parameters of a training, and the result of their cross-validation."""

    number: int  # from 0
    params: TrainParams
    metrics: Mapping[str, float] = field(default_factory=dict)
    failure: str | None = None  # why there are no metrics
    warning: str | None = None  # the first that the estimator gave

    @property
    def value(self) -> float:
        """The mean of the metric over the folds."""
        return self.metrics[mean_key(metric_of(self.params).name)]

    @property
    def spread(self) -> float:
        """The standard deviation of the metric over the folds."""
        return self.metrics[std_key(metric_of(self.params).name)]

    def as_text(self) -> dict[str, str]:
        """Return estimator and arguments as MLflow logs them."""
        return argument_texts(self.params.model, self.params.model_params)

    def summary(self) -> str:
        """Return estimator, arguments and metric in one line."""
        name = run_name(self.params)
        return f"{name}: cross-validated {format_value(self.value)} ± {format_value(self.spread)}"


def render_model_card(fitted: FittedModel) -> str:
    """Return the model card, which becomes the description of the run."""
    params, training, outcomes = fitted.params, fitted.training, fitted.outcomes
    failures = _largest_errors(outcomes) if params.task == REGRESSION else _confusions(outcomes)
    return "\n\n".join(
        [
            describe_version(fitted),
            _metric_table(params.metric, fitted),
            f"**Where it fails.** {failures}",
            f"**Data.** Digest `{training.digest[:16]}`, split `{params.split}`, seed "
            f"{params.random_state}. {_describe_labels(training)} "
            f"Columns: {_quote_columns(list(training.features))}.",
            f'**Load it.** `registry_tools.load_model("{params.name}/N")`, or '
            f"`registry-tools predict {params.name}/N --features …`, N being its number.",
        ]
    )


def describe_version(fitted: FittedModel) -> str:
    """Return one plain sentence, because the list of versions in the UI shows no Markdown."""
    params, rows = fitted.params, len(fitted.outcomes.labels)
    value = format_value(fitted.metrics[metric_key(params.metric)])
    return (
        f"{run_name(params)} on {params.data}: {params.metric} {value} on {rows} held-out rows, "
        f"trained on {len(fitted.training.labels)}."
    )


def run_name(params: TrainParams) -> str:
    """Return the name of a run: the model, and the parameters that differ from the defaults."""
    usual = TrainParams()
    parts = [f"{key}={value}" for key, value in params.model_params.items()]
    for name in ("max_iter", "test_size", "split", "subset_size"):
        if (value := getattr(params, name)) != getattr(usual, name):
            parts.append(f"{name}={as_text(value)}")
    if params.metric not in {AUTO, *DEFAULT_METRICS.values()}:
        parts.append(f"metric={params.metric}")
    return " ".join([params.model, *parts])


def _describe_labels(training: Dataset) -> str:
    if training.target_names:
        return f"Classes of `{training.target}`: {', '.join(training.target_names)}."
    low, median, high = (f"{value:.6g}" for value in np.quantile(training.labels, [0, 0.5, 1]))
    return f"`{training.target}` is a number from {low} to {high}, median {median}."


def _metric_table(name: str, fitted: FittedModel) -> str:
    metrics, key = fitted.metrics, metric_key(name)
    labels = _METRIC_LABELS | {key: _METRIC_LABELS.get(key, name)}
    rows = {label: format_value(metrics[each]) for each, label in labels.items() if each in metrics}
    if fitted.params.task == REGRESSION:
        found = estimate_number_metric(find_metric(name, REGRESSION), fitted.outcomes)
        rows[f"{labels[key]}, 95% interval"] = f"{format_value(found.low)} to {format_value(found.high)}"
    if mean_key(name) in metrics:
        mean, std = (format_value(metrics[of(name)]) for of in (mean_key, std_key))
        rows[f"{labels[key]}, cross-validated on the training rows"] = f"{mean} ± {std}"
    lines = [f"| {label} | {value} |" for label, value in rows.items()]
    return "\n".join(["| metric | held-out rows |", "| --- | --- |", *lines])


def _largest_errors(outcomes: Outcomes) -> str:
    """Return the rows with the largest errors, and the quarter of the labels with the largest mean error."""
    errors = np.abs(outcomes.predicted - outcomes.labels)
    worst = np.argsort(-errors, kind="stable")[:_MAX_CONFUSIONS]
    rows = [f"{outcomes.predicted[row]:.6g} for {outcomes.labels[row]:.6g}" for row in worst]
    quarters = np.array_split(np.argsort(outcomes.labels, kind="stable"), min(4, len(errors)))
    weakest = max(quarters, key=lambda quarter: float(errors[quarter].mean()))
    low, high = outcomes.labels[weakest[0]], outcomes.labels[weakest[-1]]
    return (
        f"The largest errors: {', '.join(rows)}. Weakest quarter of the labels: {low:.6g} to {high:.6g}, "
        f"mean absolute error {errors[weakest].mean():.6g}, {errors.mean():.6g} over all rows."
    )


def _confusions(outcomes: Outcomes) -> str:
    """Return the most frequent confusions, and the class with the lowest recall."""
    rows = pd.DataFrame({"label": outcomes.labels, "predicted": outcomes.predicted})
    is_right = rows["label"] == rows["predicted"]
    if is_right.all():
        return f"On none of the {len(rows)} held-out rows."
    counts = rows[~is_right].groupby([*rows]).size().sort_values(ascending=False, kind="stable")
    most = [f"{n} × {label} taken for {other}" for (label, other), n in counts[:_MAX_CONFUSIONS].items()]
    more = ", …" if len(counts) > _MAX_CONFUSIONS else ""
    recalls = is_right.groupby(rows["label"]).mean()
    return (
        f"On {counts.sum()} of {len(rows)} held-out rows: {', '.join(most)}{more}. "
        f"Weakest class: {recalls.idxmin()}, recall {recalls.min():.2f}."
    )


def _quote_columns(columns: Sequence[str]) -> str:
    more = f", … ({len(columns)} in all)" if len(columns) > _MAX_COLUMNS else ""
    return ", ".join(f"`{column}`" for column in columns[:_MAX_COLUMNS]) + more


def compare_with_untuned(best: Trial, untuned: Trial | None) -> str:
    """Return the metric of the best untuned default, and the gain of the search over it."""
    if untuned is None:
        return "failed"
    is_better = metric_of(best.params).is_better(best.value, untuned.value)
    gained = f"{format_value(abs(best.value - untuned.value))} better" if is_better else "NOT better"
    return f"{untuned.summary()}; the best is {gained}"


def render_sweep_card(version: str, trials: Sequence[Trial], untuned: Trial | None, failed: int) -> str:
    """Return the card of a sweep.

    Parameters
    ----------
    version
        The registered version.
    trials
        Those that finished, the best first.
    untuned
        The best of the estimators' defaults; None if all of them failed.
    failed
        The number of trials that failed.
    """
    more = f", {failed} more failed" if failed else ""
    shown = [f"{place}. {trial.summary()}" for place, trial in enumerate(trials[:_MAX_TRIALS], 1)]
    return (
        f"**{version}** is the best of {len(trials)} trials{more}.\n\n"
        f"Untuned default: {compare_with_untuned(trials[0], untuned)}.\n\n"
        "The best on the training rows:\n\n" + "\n".join(shown)
    )
