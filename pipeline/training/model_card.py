"""A short model card in Markdown: the data, the parameters, the quality and the weak spots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from pipeline.data.dataset import Dataset
from pipeline.params.definitions import TrainParams
from pipeline.params.fields import as_text

_METRIC_LABELS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "f1_macro": "F1, mean of the classes",
    "roc_auc": "area under the ROC, mean of the classes",
    "log_loss": "log loss",
}
_MAX_CONFUSIONS = 5  # that the card lists
_MAX_COLUMNS = 30
_MAX_TRIALS = 5


@dataclass(frozen=True)
class EvaluatedTrial:
    """A trial of a sweep that finished, with its metrics by cross-validation."""

    params: TrainParams
    metrics: Mapping[str, float]

    @property
    def accuracy(self) -> float:
        """The mean of the folds."""
        return self.metrics["cv_accuracy_mean"]

    def summary(self) -> str:
        """Return estimator, arguments and accuracy in one line."""
        spread = self.metrics["cv_accuracy_std"]
        return f"{run_name(self.params)}: cross-validated {self.accuracy:.4f} ± {spread:.4f}"


def render_model_card(
    params: TrainParams,
    training: Dataset,
    holdout: Dataset,
    metrics: Mapping[str, float],
    counts: npt.NDArray[np.int64],
) -> str:
    """Return the card of a run and of its version.

    Parameters
    ----------
    params
        Of the run.
    training, holdout
        The rows it was trained on, and those it was not.
    metrics
        The metrics of the run, by name.
    counts
        Rows of the holdout, shape (true class, predicted class).
    """
    names = training.target_names
    rows = len(holdout.labels)
    return "\n\n".join(
        [
            f"**{run_name(params)}** on `{params.data}`: accuracy **{metrics['accuracy']:.4f}** on "
            f"{rows} held-out rows, trained on {len(training.labels)}.",
            _metric_table(metrics),
            f"**Where it fails.** {_failures(counts, names)}",
            f"**Data.** Digest `{training.digest[:16]}`, split `{params.split}`, seed "
            f"{params.random_state}. Classes of `{training.target}`: {', '.join(names)}. "
            f"Columns: {_quote_columns(list(training.features))}.",
            f'**Load it.** `registry_tools.load_model("{params.name}/N")`, or '
            f"`registry-tools predict {params.name}/N --features …`, N being its number.",
        ]
    )


def run_name(params: TrainParams) -> str:
    """Return what a run is called: the model, and the parameters that are not the usual ones."""
    usual = TrainParams()
    parts = [f"{key}={value}" for key, value in params.model_params.items()]
    for spec in fields(params):
        value = getattr(params, spec.name)
        if spec.name in {"max_iter", "subset_size", "split", "test_size"} and value != getattr(
            usual, spec.name
        ):
            parts.append(f"{spec.name}={as_text(value)}")
    return " ".join([params.model, *parts])


def _metric_table(metrics: Mapping[str, float]) -> str:
    lines = ["| metric | held-out rows |", "| --- | --- |"]
    lines += [f"| {_METRIC_LABELS[n]} | {metrics[n]:.4f} |" for n in _METRIC_LABELS if n in metrics]
    if "cv_accuracy_mean" in metrics:
        mean, std = metrics["cv_accuracy_mean"], metrics["cv_accuracy_std"]
        lines.append(f"| accuracy, cross-validated on the training rows | {mean:.4f} ± {std:.4f} |")
    return "\n".join(lines)


def _failures(counts: npt.NDArray[np.int64], names: Sequence[str]) -> str:
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    if not wrong.any():
        return f"On none of the {counts.sum()} held-out rows."
    places = sorted(np.argwhere(wrong).tolist(), key=lambda p: -wrong[p[0], p[1]])
    confusions = [f"{wrong[t, p]} × {names[t]} taken for {names[p]}" for t, p in places[:_MAX_CONFUSIONS]]
    more = ", …" if len(places) > _MAX_CONFUSIONS else ""
    present = counts.sum(axis=1) > 0
    recalls = np.where(present, counts.diagonal() / np.maximum(counts.sum(axis=1), 1), 2.0)
    worst = int(recalls.argmin())
    return (
        f"On {wrong.sum()} of {counts.sum()} held-out rows: {', '.join(confusions)}{more}. "
        f"Weakest class: {names[worst]}, recall {recalls[worst]:.2f}."
    )


def _quote_columns(columns: Sequence[str]) -> str:
    more = f", … ({len(columns)} in all)" if len(columns) > _MAX_COLUMNS else ""
    return ", ".join(f"`{column}`" for column in columns[:_MAX_COLUMNS]) + more


def compare_with_untuned(best: EvaluatedTrial, untuned: EvaluatedTrial | None) -> str:
    """Return the accuracy of the best untuned default, and what a search gained over it."""
    if untuned is None:
        return "failed"
    gain = best.accuracy - untuned.accuracy
    gained = f"{gain:.4f} better" if gain > 0 else "NOT better"
    return f"{untuned.summary()}; the best is {gained}"


def render_sweep_card(
    version: str, trials: Sequence[EvaluatedTrial], untuned: EvaluatedTrial | None, failed: int
) -> str:
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
    return "\n".join(
        [
            f"**{version}** is the best of {len(trials)} trials{more}.",
            "",
            f"Untuned default: {compare_with_untuned(trials[0], untuned)}.",
            "",
            "The best on the training rows:",
            "",
            *(f"{place}. {trial.summary()}" for place, trial in enumerate(trials[:_MAX_TRIALS], 1)),
        ]
    )
