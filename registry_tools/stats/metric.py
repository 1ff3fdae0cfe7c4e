"""The metrics that a training, a sweep, a promotion and the monitoring can decide by."""

from __future__ import annotations

import difflib
import importlib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from registry_tools.errors import InputError, first_line
from registry_tools.task import CLASSIFICATION, DEFAULT_METRICS, REGRESSION

# MLflow accepts more characters in a metric's name; some of them have a meaning in paths or searches.
_NOT_IN_A_NAME = re.compile(r"[^\w\-. ]")
_ONLY_DOTS = re.compile(r"^\.*$")  # MLflow refuses a part of a path such as `..`
_LONGEST = 100  # characters; MLflow accepts 250 for the whole name
LEAST_PROBABILITY = float(np.finfo(float).eps)  # a probability of 0 counts as this, as in scikit-learn


@dataclass(frozen=True)
class Outcomes:
    """Labelled rows with the predictions of one version."""

    labels: npt.NDArray[Any]  # class names, or the true numbers, shape (rows,)
    predicted: npt.NDArray[Any]  # written as the labels, shape (rows,)
    probabilities: npt.NDArray[np.float64] | None = None  # shape (rows, classes)
    classes: tuple[str, ...] = ()  # in the order of the probabilities

    def take(self, rows: npt.NDArray[Any]) -> Outcomes:
        """Return the rows of a mask or at positions; a position may occur more than once."""
        probabilities = None if self.probabilities is None else self.probabilities[rows]
        return Outcomes(self.labels[rows], self.predicted[rows], probabilities, self.classes)


@dataclass(frozen=True)
class Metric:
    """A number that says how good predictions are."""

    name: str
    task: str  # CLASSIFICATION or REGRESSION
    function: Callable[[Outcomes], float]
    less_is_better: bool = False
    needs_probabilities: bool = False

    def compute(self, outcomes: Outcomes) -> float:
        """Return the metric; NaN if it is undefined for these rows, such as the recall of an absent class.

        Raises
        ------
        InputError
            If the metric needs probabilities and the model has none, or a function of the user fails.
        """
        if self.needs_probabilities and outcomes.probabilities is None:
            raise InputError(f"metric={self.name}: the model has no probabilities: take another metric")
        return float(self.function(outcomes)) if len(outcomes.labels) else float("nan")

    def is_better(self, value: float, other: float) -> bool:
        """Return whether one value of the metric is better than another."""
        return value < other if self.less_is_better else value > other


def find_metric(name: str, task: str) -> Metric:
    """Return a metric by its name, `recall:CLASS`, `precision:CLASS`, or `module:function`.

    A function receives the labels and the predictions, each of shape (rows,), and returns a number;
    a greater number is better.

    Raises
    ------
    InputError
        If there is no such metric for the task, or the function cannot be imported.
    """
    known = {metric.name: metric for metric in METRICS if metric.task == task}
    if name in known:
        return known[name]
    kind, separator, rest = name.partition(":")
    if separator and rest and task == CLASSIFICATION and kind in _OF_CLASS:
        return Metric(name, task, lambda outcomes: _OF_CLASS[kind](outcomes, rest))
    if separator and rest and kind not in _OF_CLASS:
        return Metric(name, task, _call(name, _import(name, kind, rest)))
    names = [*known, *(f"{kind}:CLASS" for kind in _OF_CLASS if task == CLASSIFICATION), "module:function"]
    other = next((metric.task for metric in METRICS if metric.name == name), None)
    near = difflib.get_close_matches(name, known, 1)
    hint = f"it is a metric of {other}; " if other else f"did you mean {near[0]}? " if near else ""
    raise InputError(f"metric={name}: {hint}a {task} has {', '.join(names)}")


def runs_code(name: str) -> bool:
    """Return whether a metric is a `module:function`, which only the user may name."""
    kind, separator, _ = name.partition(":")
    return bool(separator) and kind not in _OF_CLASS


def choose_metric(given: str | None, recorded: str | None, task: str) -> tuple[Metric, str]:
    """Return the metric to judge a version by, and a note if it is not the recorded one.

    Parameters
    ----------
    given
        The metric that the user names; None takes the recorded one.
    recorded
        The metric recorded with the version; None takes the default of the task. A recorded
        `module:function` is not imported, because a user who may register a version could then run code.
    task
        The task of the version.

    Raises
    ------
    InputError
        As `find_metric`.
    """
    if given is not None:
        return find_metric(given, task), ""
    default = DEFAULT_METRICS[task]
    if recorded is not None and runs_code(recorded):
        note = (
            f"compared by {default}: the recorded metric {recorded} runs code, and needs --metric {recorded}"
        )
        return find_metric(default, task), note
    return find_metric(recorded or default, task), ""


def compared_rows(metric: Metric, candidate: Outcomes, champion: Outcomes) -> int:
    """Return the number of rows that a comparison by a metric counts.

    A recall counts the rows of its class, and a precision those for which a version predicts its class.
    """
    kind, _, of_class = metric.name.partition(":")
    if kind == "recall":
        return int(np.sum(candidate.labels == of_class))
    if kind == "precision":
        return int(np.sum((candidate.predicted == of_class) | (champion.predicted == of_class)))
    return len(candidate.labels)


def metric_suffixes(names: Sequence[str]) -> list[str]:
    """Return names of classes or metrics as parts of the names of logged metrics, without duplicates."""
    suffixes = [_ONLY_DOTS.sub("_", _NOT_IN_A_NAME.sub("_", name)[:_LONGEST]) for name in names]
    numbered = [f"{suffix}_{code}" for code, suffix in enumerate(suffixes)]
    found = [one if suffixes.count(one) == 1 else two for one, two in zip(suffixes, numbered, strict=True)]
    return found if len(set(found)) == len(found) else numbered


def class_key(suffix: str, kind: str) -> str:
    """Return the name of a logged metric of a class, given as a part of `metric_suffixes`."""
    return f"class/{suffix}/{kind}"


def metric_key(name: str) -> str:
    """Return the name under which a run logs a metric: `recall:cat` becomes `class/cat/recall`."""
    kind, separator, rest = name.partition(":")
    if separator and kind in _OF_CLASS:
        return class_key(metric_suffixes([rest])[0], kind)
    return metric_suffixes([name])[0]


def _import(name: str, module: str, function: str) -> Callable[..., Any]:
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"metric={name}: cannot be imported: {first_line(error, 200)}") from error
    if not callable(found):
        raise InputError(f"metric={name}: it is not a function")
    return found  # type: ignore[no-any-return]


def _call(name: str, function: Callable[..., Any]) -> Callable[[Outcomes], float]:
    def compute(outcomes: Outcomes) -> float:
        try:
            return float(function(outcomes.labels, outcomes.predicted))
        except Exception as error:
            raise InputError(f"metric={name}: the function failed: {first_line(error, 200)}") from error

    return compute


def _recall(outcomes: Outcomes, name: str) -> float:
    rows = outcomes.labels == name
    return float(np.mean(outcomes.predicted[rows] == name)) if rows.any() else float("nan")


def _precision(outcomes: Outcomes, name: str) -> float:
    rows = outcomes.predicted == name
    return float(np.mean(outcomes.labels[rows] == name)) if rows.any() else float("nan")


_OF_CLASS: dict[str, Callable[[Outcomes, str], float]] = {"recall": _recall, "precision": _precision}


def _balanced_accuracy(outcomes: Outcomes) -> float:
    """Return the mean recall of the classes of the labels; scikit-learn warns of any other class."""
    return float(np.mean([_recall(outcomes, name) for name in np.unique(outcomes.labels)]))


def _f1_macro(outcomes: Outcomes) -> float:
    from sklearn.metrics import f1_score  # takes half a second to import

    return float(f1_score(outcomes.labels, outcomes.predicted, average="macro", zero_division=0))


def _indicators(outcomes: Outcomes) -> npt.NDArray[np.bool_]:
    """Return which class each label is, shape (rows, classes)."""
    return np.equal.outer(outcomes.labels, np.asarray(outcomes.classes, dtype=object)).astype(bool)


def label_losses(outcomes: Outcomes) -> npt.NDArray[np.float64] | None:
    """Return the log loss of each row, shape (rows,); None if a label is not a class of the model."""
    code_of = {name: code for code, name in enumerate(outcomes.classes)}
    codes = np.array([code_of.get(name, -1) for name in outcomes.labels.tolist()], dtype=np.int64)
    if (codes < 0).any():
        return None
    given = np.asarray(outcomes.probabilities)[np.arange(len(codes)), codes]
    return np.asarray(0.0 - np.log(np.clip(given, LEAST_PROBABILITY, 1)))


def _log_loss(outcomes: Outcomes) -> float:
    losses = label_losses(outcomes)
    return float("nan") if losses is None else float(losses.mean())


def _ranking(function: str) -> Callable[[Outcomes], float]:
    """Return the score of the second of two classes, or the mean over more classes, one against the rest.

    `function` is the name of a function in `sklearn.metrics`.
    """

    def compute(outcomes: Outcomes) -> float:
        score = getattr(importlib.import_module("sklearn.metrics"), function)
        is_class, scores = _indicators(outcomes), np.asarray(outcomes.probabilities)
        if len(outcomes.classes) == 2:
            is_class, scores = is_class[:, 1:], scores[:, 1:]
        present = is_class.any(axis=0)
        if not present.all() or is_class.all(axis=0).any():
            return float("nan")
        columns = range(is_class.shape[1])
        return float(np.mean([score(is_class[:, column], scores[:, column]) for column in columns]))

    return compute


def _mean_squared_error(outcomes: Outcomes) -> float:
    return float(np.mean((outcomes.labels - outcomes.predicted) ** 2))


def _r2(outcomes: Outcomes) -> float:
    spread = float(np.var(outcomes.labels)) if len(outcomes.labels) else 0.0
    return 1 - _mean_squared_error(outcomes) / spread if spread else float("nan")


METRICS = (
    Metric("accuracy", CLASSIFICATION, lambda o: float(np.mean(o.labels == o.predicted))),
    Metric("balanced_accuracy", CLASSIFICATION, _balanced_accuracy),
    Metric("f1_macro", CLASSIFICATION, _f1_macro),
    Metric("roc_auc", CLASSIFICATION, _ranking("roc_auc_score"), needs_probabilities=True),
    Metric(
        "average_precision", CLASSIFICATION, _ranking("average_precision_score"), needs_probabilities=True
    ),
    Metric("log_loss", CLASSIFICATION, _log_loss, less_is_better=True, needs_probabilities=True),
    Metric("rmse", REGRESSION, lambda o: math.sqrt(_mean_squared_error(o)), True),
    Metric("mae", REGRESSION, lambda o: float(np.mean(np.abs(o.labels - o.predicted))), True),
    Metric(
        "median_absolute_error", REGRESSION, lambda o: float(np.median(np.abs(o.labels - o.predicted))), True
    ),
    Metric("r2", REGRESSION, _r2),
)
