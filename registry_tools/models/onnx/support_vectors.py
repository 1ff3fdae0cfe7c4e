"""Convert support vector machines; the operators of ONNX for them compute in float32 only."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from sklearn.svm import SVC, SVR

from registry_tools.models.onnx.graph import Graph
from registry_tools.models.onnx.rows import NotConvertible, Prediction, Rows, best_class


def convert_classifier(graph: Graph, estimator: SVC, rows: Rows) -> Prediction:
    """Add a classifier, which lets each pair of classes vote.

    Raises
    ------
    NotConvertible
        If it has another kernel, or probabilities of its own.
    """
    if estimator.probability is True:
        raise NotConvertible("the SVC has probability=True; calibrate it by CalibratedClassifierCV instead")
    if estimator.break_ties or estimator.decision_function_shape != "ovr":
        raise NotConvertible("the SVC has break_ties=True or decision_function_shape='ovo'")
    classes, pairs = estimator.classes_, list(itertools.combinations(range(len(estimator.classes_)), 2))
    ends = np.cumsum(estimator._n_support)
    spans = [slice(end - count, end) for end, count in zip(ends, estimator._n_support, strict=True)]
    weights = np.zeros((len(estimator.support_vectors_), len(pairs)))
    for pair, (one, two) in enumerate(pairs):
        weights[spans[one], pair] = estimator._dual_coef_[two - 1, spans[one]]
        weights[spans[two], pair] = estimator._dual_coef_[one, spans[two]]
    values = _sums(graph, estimator, rows, weights, estimator._intercept_)
    if len(classes) == 2:
        decision = graph.add("Neg", values)
        below = graph.add("LessOrEqual", values, graph.constant(0.0))
        return Prediction(graph.flat(graph.cast(below, np.int64)), classes, None, decision)
    # A column for each class: its votes, and the sum of the values of its pairs.
    first, second = np.zeros((len(pairs), len(classes))), np.zeros((len(pairs), len(classes)))
    for pair, (one, two) in enumerate(pairs):
        first[pair, one], second[pair, two] = 1, 1
    # libsvm's vote and the scores of scikit-learn differ in the vote of a value of exactly 0.
    label = best_class(graph, _votes(graph, graph.add("Greater", values, graph.constant(0.0)), first, second))
    is_second = graph.add("Less", values, graph.constant(0.0))
    votes = _votes(graph, graph.add("Not", is_second), first, second)
    sums = graph.add("MatMul", values, graph.constant(first - second))
    size = graph.add(
        "Mul", graph.add("Add", graph.add("Abs", sums), graph.constant(1.0)), graph.constant(3.0)
    )
    return Prediction(label, classes, None, graph.add("Add", votes, graph.add("Div", sums, size)))


def _votes(graph: Graph, is_first: str, first: Any, second: Any) -> str:
    """Add the number of pairs that each class wins, shape (rows, classes)."""
    wins = graph.cast(is_first, np.float64)
    losses = graph.add("Sub", graph.constant(1.0), wins)
    return graph.add(
        "Add",
        graph.add("MatMul", wins, graph.constant(first)),
        graph.add("MatMul", losses, graph.constant(second)),
    )


def convert_regressor(graph: Graph, estimator: SVR, rows: Rows) -> Prediction:
    """Add a regressor.

    Raises
    ------
    NotConvertible
        If it has another kernel.
    """
    weights = estimator._dual_coef_.T
    return Prediction(graph.flat(_sums(graph, estimator, rows, weights, estimator._intercept_)))


def _sums(graph: Graph, estimator: Any, rows: Rows, weights: Any, intercepts: Any) -> str:
    """Add the weighted sums of the kernel between rows and support vectors, shape (rows, sums)."""
    value, vectors, gamma = rows.numbers(graph), estimator.support_vectors_, estimator._gamma
    if estimator.kernel == "linear":
        kernel = graph.add("MatMul", value, graph.constant(vectors.T))
    elif estimator.kernel == "rbf":
        # Around their mean, the squares are small, and so is the rounding of their differences.
        center = vectors.mean(axis=0)
        value, vectors = graph.add("Sub", value, graph.constant(center[None])), vectors - center
        axis = graph.constant([1], np.int64)
        squares = graph.add("ReduceSum", graph.add("Mul", value, value), axis, keepdims=1)
        products = graph.add("MatMul", value, graph.constant(-2 * vectors.T))
        both = graph.add("Add", squares, graph.constant((vectors**2).sum(axis=1)[None]))
        kernel = graph.add("Exp", graph.add("Mul", graph.add("Add", both, products), graph.constant(-gamma)))
    else:
        raise NotConvertible(
            f"the {type(estimator).__name__} has the kernel {estimator.kernel!r}, not rbf or linear"
        )
    sums = graph.add("MatMul", kernel, graph.constant(weights))
    return graph.add("Add", sums, graph.constant(np.asarray(intercepts)[None]))
