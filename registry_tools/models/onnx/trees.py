"""Convert ensembles of trees to one node that compares and sums in float64.

ONNX trees usually compare and sum in float32. scikit-learn rounds a row to float32, but compares it with a
float64 threshold, and sums in float64: the labels would differ near the boundaries, and at ties between
classes. So the row is rounded where the library rounds it, and the tree has float64 splits and leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from registry_tools.models.onnx.graph import ML, Graph, import_onnx

_LESS_OR_EQUAL, _LESS = 0, 1  # codes of `nodes_modes`
_SUM, _NO_TRANSFORM = 1, 0


@dataclass(frozen=True)
class Tree:
    """A binary tree as arrays, by the number of the node; node 0 is the root.

    `left` of a leaf is -1. A row goes left if its value is below the split, or equal to it.
    """

    left: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]
    feature: npt.NDArray[np.int64]
    split: npt.NDArray[np.float64]
    missing_left: npt.NDArray[np.bool_]  # where a missing value goes
    value: npt.NDArray[np.float64]  # of a leaf
    target: int = 0  # the output that the leaves add to


def sklearn_tree(tree: Any, values: npt.NDArray[np.float64], target: int) -> Tree:
    """Return a `sklearn.tree._tree.Tree` with other values, shape (nodes,)."""
    missing = getattr(tree, "missing_go_to_left", np.zeros(tree.node_count))
    features = np.maximum(tree.feature, 0)
    return Tree(
        tree.children_left, tree.children_right, features, tree.threshold, missing > 0, values, target
    )


def add_trees(graph: Graph, rows: str, trees: Sequence[Tree], targets: int, *, strict: bool = False) -> str:
    """Add the sums of trees, float64 of shape (rows, targets).

    Parameters
    ----------
    graph, rows
        The graph, and its float64 rows.
    trees
        The trees, summed in this order.
    targets
        The number of outputs.
    strict
        Whether a value that equals the split goes right.
    """
    nodes: dict[str, list[Any]] = {
        key: [] for key in ("features", "splits", "true", "true_leaf", "false", "false_leaf", "missing")
    }
    roots: list[int] = []
    weights: list[float] = []
    leaf_targets: list[int] = []

    def add_leaf(value: float, target: int) -> int:
        weights.append(value)
        leaf_targets.append(target)
        return len(weights) - 1

    for tree in trees:
        inner = np.flatnonzero(tree.left >= 0)
        first = len(nodes["features"])
        roots.append(first)
        if not len(inner):  # a single leaf: both ways lead to it
            inner, left, right = np.array([0]), np.array([0]), np.array([0])
        else:
            left, right = tree.left, tree.right
        # The root is node 0, so it stays the first.
        place = {int(node): first + number for number, node in enumerate(inner)}
        is_single = tree.left[0] < 0
        for node in inner:
            nodes["features"].append(int(tree.feature[node]))
            nodes["splits"].append(float(tree.split[node]) if not is_single else 0.0)
            nodes["missing"].append(int(tree.missing_left[node]))
            for way, children in (("true", left), ("false", right)):
                child = int(children[node])
                is_leaf = is_single or tree.left[child] < 0
                nodes[f"{way}_leaf"].append(int(is_leaf))
                leaf = add_leaf(float(tree.value[child]), tree.target) if is_leaf else place[child]
                nodes[way].append(leaf)
    tensor = import_onnx().numpy_helper.from_array
    mode = _LESS if strict else _LESS_OR_EQUAL
    return graph.add(
        "TreeEnsemble",
        rows,
        domain=ML,
        aggregate_function=_SUM,
        post_transform=_NO_TRANSFORM,
        n_targets=targets,
        tree_roots=roots,
        nodes_featureids=nodes["features"],
        nodes_splits=tensor(np.array(nodes["splits"], np.float64)),
        nodes_modes=tensor(np.full(len(nodes["features"]), mode, np.uint8)),
        nodes_missing_value_tracks_true=nodes["missing"],
        nodes_truenodeids=nodes["true"],
        nodes_trueleafs=nodes["true_leaf"],
        nodes_falsenodeids=nodes["false"],
        nodes_falseleafs=nodes["false_leaf"],
        leaf_targetids=leaf_targets,
        leaf_weights=tensor(np.array(weights, np.float64)),
    )


def rounded(graph: Graph, rows: str) -> str:
    """Add the rounding of rows to float32, as float64."""
    return graph.cast(graph.cast(rows, np.float32), np.float64)
