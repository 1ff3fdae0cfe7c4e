"""Models that are a function from rows to numbers, and classifiers made of their scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from registry_tools.data.prediction_shape import flatten_one_output

Outputs = Callable[[Any], npt.NDArray[Any]]

SOFTMAX, SIGMOID = "softmax", "sigmoid"  # the last step of a model whose outputs are probabilities


@dataclass(frozen=True)
class OutputModel:
    """Predicts the outputs of a function."""

    outputs: Outputs

    def predict(self, rows: Any) -> npt.NDArray[Any]:
        """Return the outputs for rows, shape (rows,), or (rows, outputs) for several outputs."""
        return flatten_one_output(self.outputs(rows))


@dataclass(frozen=True)
class ScoreClassifier:
    """Predicts the class with the highest score, if the function has a score for each class."""

    outputs: Outputs
    classes_: npt.NDArray[Any]

    def predict(self, rows: Any) -> npt.NDArray[Any]:
        """Return the predicted classes, shape (rows,).

        Raises
        ------
        ValueError
            If a score is missing, so that no class has the highest one.
        """
        scores = self.outputs(rows)
        if scores.ndim != 2 or scores.shape[1] != len(self.classes_) or len(self.classes_) < 2:
            return flatten_one_output(scores)  # the model predicts classes itself
        if np.isnan(scores).any():
            raise ValueError(f"the scores of row {np.argwhere(np.isnan(scores))[0][0]} are missing")
        return self.classes_[scores.argmax(axis=1)]


@dataclass(frozen=True)
class ProbabilityClassifier(ScoreClassifier):
    """A classifier whose scores are probabilities."""

    def predict_proba(self, rows: Any) -> npt.NDArray[Any]:
        """Return the probability of each class, shape (rows, classes)."""
        return self.outputs(rows)


def model_of_scores(
    outputs: Outputs, class_names: Sequence[str], last_step: str | None
) -> OutputModel | ScoreClassifier:
    """Return a classifier for a version with class names, and a model of plain outputs for any other.

    Parameters
    ----------
    outputs
        Returns the outputs of the model for rows.
    class_names
        The class names of the version in code order.
    last_step
        `SOFTMAX` or `SIGMOID`, if the model ends with it.
    """
    classes = np.arange(len(class_names))
    if not class_names:
        return OutputModel(outputs)
    if last_step == SIGMOID and len(classes) == 2:
        return ProbabilityClassifier(lambda rows: _both_classes(outputs(rows)), classes)
    if last_step == SOFTMAX:
        return ProbabilityClassifier(outputs, classes)
    return ScoreClassifier(outputs, classes)


def _both_classes(second: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the probabilities of two classes from those of the second, shape (rows,) or (rows, 1)."""
    probability = second.reshape(len(second), -1)
    return probability if probability.shape[1] == 2 else np.hstack([1 - probability, probability])
