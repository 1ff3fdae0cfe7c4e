"""Turn the scores of classes into predictions."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from registry_tools.models.onnx.graph import Graph
from registry_tools.models.onnx.rows import Prediction


def best_class(graph: Graph, scores: str) -> str:
    """Add the position of the largest score, the first of equal ones; shape (rows,)."""
    return graph.add("ArgMax", scores, axis=1, keepdims=0)


def of_margins(graph: Graph, margins: str, classes: npt.NDArray[Any]) -> Prediction:
    """Add the predictions of a model of log-odds.

    Parameters
    ----------
    graph, margins
        The graph, and the log-odds, shape (rows, classes) or, of two classes, (rows, 1).
    classes
        The classes of the model.
    """
    if len(classes) > 2:
        probabilities = graph.add("Softmax", margins, axis=1)
        return Prediction(best_class(graph, margins), classes, probabilities, margins)
    positive = graph.add("Sigmoid", margins)
    probabilities = graph.join([graph.add("Sub", graph.constant(1.0), positive), positive])
    above = graph.add("Greater", margins, graph.constant(0.0))
    return Prediction(graph.flat(graph.cast(above, np.int64)), classes, probabilities, margins)
