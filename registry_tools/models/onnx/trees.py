"""Convert ensembles of trees to one node that compares and sums in float64.

ONNX trees usually compare and sum in float32. scikit-learn rounds a row to float32, but compares it with a
float64 threshold, and sums in float64: the labels would differ near the boundaries, and at ties between
classes. So the row is rounded where the library rounds it, and the tree has float64 splits and leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
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
    nodes = _Nodes()
    for tree in trees:
        nodes.add(tree)
    tensor = import_onnx().numpy_helper.from_array
    mode = _LESS if strict else _LESS_OR_EQUAL
    return graph.add(
        "TreeEnsemble",
        rows,
        domain=ML,
        aggregate_function=_SUM,
        post_transform=_NO_TRANSFORM,
        n_targets=targets,
        tree_roots=nodes.roots,
        nodes_featureids=nodes.features,
        nodes_splits=tensor(np.array(nodes.splits, np.float64)),
        nodes_modes=tensor(np.full(len(nodes.features), mode, np.uint8)),
        nodes_missing_value_tracks_true=nodes.missing,
        nodes_truenodeids=nodes.true,
        nodes_trueleafs=nodes.true_leaf,
        nodes_falsenodeids=nodes.false,
        nodes_falseleafs=nodes.false_leaf,
        leaf_targetids=nodes.leaf_targets,
        leaf_weights=tensor(np.array(nodes.leaf_weights, np.float64)),
    )


@dataclass
class _Nodes:
    """The inner nodes and the leaves of all trees, as the operator numbers them: two lists of their own."""

    roots: list[int] = field(default_factory=list)  # the first node of each tree
    features: list[int] = field(default_factory=list)
    splits: list[float] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)  # whether a missing value goes left
    true: list[int] = field(default_factory=list)  # the node or the leaf on the left
    true_leaf: list[int] = field(default_factory=list)  # whether it is a leaf
    false: list[int] = field(default_factory=list)  # the same on the right
    false_leaf: list[int] = field(default_factory=list)
    leaf_weights: list[float] = field(default_factory=list)
    leaf_targets: list[int] = field(default_factory=list)

    def add(self, tree: Tree) -> None:
        """Add the nodes of a tree."""
        first = len(self.features)
        self.roots.append(first)
        if tree.left[0] < 0:  # a single leaf: both ways of a node lead to it
            self._add_node(0, 0.0, bool(tree.missing_left[0]))
            for ways, are_leaves in self._ways():
                self._add_leaf(tree, 0, ways, are_leaves)
            return
        inner = np.flatnonzero(tree.left >= 0)
        # The root is node 0, so it stays the first.
        place = {int(node): first + number for number, node in enumerate(inner)}
        for node in inner:
            self._add_node(int(tree.feature[node]), float(tree.split[node]), bool(tree.missing_left[node]))
            for (ways, are_leaves), children in zip(self._ways(), (tree.left, tree.right), strict=True):
                child = int(children[node])
                if child in place:
                    ways.append(place[child])
                    are_leaves.append(0)
                else:
                    self._add_leaf(tree, child, ways, are_leaves)

    def _ways(self) -> tuple[tuple[list[int], list[int]], tuple[list[int], list[int]]]:
        return (self.true, self.true_leaf), (self.false, self.false_leaf)

    def _add_node(self, feature: int, split: float, missing_left: bool) -> None:
        self.features.append(feature)
        self.splits.append(split)
        self.missing.append(int(missing_left))

    def _add_leaf(self, tree: Tree, node: int, ways: list[int], are_leaves: list[int]) -> None:
        ways.append(len(self.leaf_weights))
        are_leaves.append(1)
        self.leaf_weights.append(float(tree.value[node]))
        self.leaf_targets.append(tree.target)


def rounded(graph: Graph, rows: str) -> str:
    """Add the rounding of rows to float32, as float64."""
    return graph.cast(graph.cast(rows, np.float32), np.float64)
