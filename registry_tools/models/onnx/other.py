"""Convert other estimators and transformers of scikit-learn by `skl2onnx`, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np

from registry_tools.errors import UnsupportedOperation, first_line
from registry_tools.models.onnx.graph import ML, Graph, import_onnx
from registry_tools.models.onnx.rows import NotConvertible, Prediction, Rows

# `skl2onnx` raises these for estimators that it cannot convert, or not in float64.
_ERRORS = (RuntimeError, NotImplementedError, ValueError, TypeError, AttributeError, LookupError)


def convert_transformer(graph: Graph, step: Any, value: str, width: int) -> tuple[str, int]:
    """Add a transformer of numbers, and return its result and its width."""
    (made,) = _inline(graph, step, value, width, 1)
    return made, int(np.shape(step.transform(np.zeros((1, width))))[1])


def convert_estimator(graph: Graph, estimator: Any, rows: Rows) -> Prediction:
    """Add a classifier or regressor."""
    value = rows.numbers(graph)
    classes = getattr(estimator, "classes_", None)
    if classes is None:
        (number,) = _inline(graph, estimator, value, rows.width, 1)
        return Prediction(graph.flat(number))
    label, probabilities = _inline(graph, estimator, value, rows.width, 2)
    equal = graph.add(
        "Equal",
        graph.add("Unsqueeze", label, graph.constant([1], np.int64)),
        graph.constant(classes[None], object if classes.dtype.kind in "OU" else np.int64),
    )
    place = graph.add("ArgMax", graph.cast(equal, np.int64), axis=1, keepdims=0)
    return Prediction(place, classes, probabilities)


def _inline(graph: Graph, step: Any, value: str, width: int, outputs: int) -> list[str]:
    """Add the nodes that `skl2onnx` makes, and return the names of their outputs."""
    onnx = import_onnx()
    try:
        from skl2onnx import to_onnx
        from skl2onnx.common.data_types import DoubleTensorType
    except ModuleNotFoundError as error:
        raise UnsupportedOperation(
            f"the ONNX export of a {type(step).__name__} needs the extra `onnx` ({error.name} is not "
            "installed): pip install 'registry-pipeline[onnx]'"
        ) from error
    options = {id(step): {"zipmap": False}} if hasattr(step, "classes_") else None
    try:
        made = to_onnx(
            step,
            initial_types=[("rows", DoubleTensorType([None, width]))],
            options=options,
            target_opset={"": 18, ML: 3},
        )
    except _ERRORS as error:
        raise NotConvertible(f"{type(step).__name__}: {first_line(error, 150)}") from error
    graph.count += 1
    prefix = f"part_{graph.count}_"
    part = onnx.compose.add_prefix(made, prefix)
    if old := {node.op_type for node in part.graph.node if node.op_type.startswith("TreeEnsemble")}:
        raise NotConvertible(f"{type(step).__name__}: {min(old)} compares in float32")
    if len(part.graph.output) != outputs:
        raise NotConvertible(f"{type(step).__name__} has {len(part.graph.output)} outputs, not {outputs}")
    graph.nodes.append(onnx.helper.make_node("Identity", [value], [part.graph.input[0].name]))
    graph.nodes += part.graph.node
    graph.constants += part.graph.initializer
    return [output.name for output in part.graph.output]
