"""Convert the trees of XGBoost and LightGBM."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from registry_tools.models.onnx.graph import Graph
from registry_tools.models.onnx.rows import NotConvertible, Prediction, Rows, of_margins
from registry_tools.models.onnx.trees import Tree, add_trees, rounded

_LOGISTIC = "binary:logistic"
_XGBOOST_OBJECTIVES = (_LOGISTIC, "multi:softprob", "multi:softmax", "reg:squarederror")


def convert_xgboost(graph: Graph, estimator: Any, rows: Rows) -> Prediction:
    """Add an XGBClassifier or XGBRegressor, which compares in float32.

    Raises
    ------
    NotConvertible
        If it has another booster, another objective, or categorical features.
    """
    booster = estimator.get_booster()
    iterations = getattr(estimator, "best_iteration", None) if booster.attr("best_iteration") else None
    if iterations is not None:
        booster = booster[: iterations + 1]
    learner = json.loads(booster.save_raw("json"))["learner"]
    objective, kind = learner["objective"]["name"], learner["gradient_booster"]["name"]
    if objective not in _XGBOOST_OBJECTIVES or kind != "gbtree":
        raise NotConvertible(
            f"the {type(estimator).__name__} has the booster {kind} and the objective {objective}"
        )
    model = learner["gradient_booster"]["model"]
    trees = [
        _xgboost_tree(tree, target) for tree, target in zip(model["trees"], model["tree_info"], strict=True)
    ]
    parameters = learner["learner_model_param"]
    targets = max(int(parameters["num_class"]), 1)
    start = np.array(json.loads(parameters["base_score"]), dtype=np.float64).reshape(1, -1)
    if objective == _LOGISTIC:
        start = np.log(start / (1 - start))
    sums = add_trees(graph, rounded(graph, rows.numbers(graph)), trees, targets, strict=True)
    margins = graph.add("Add", sums, graph.constant(np.broadcast_to(start, (1, targets))))
    classes = getattr(estimator, "classes_", None)
    if classes is None:
        return Prediction(graph.flat(margins))
    return of_margins(graph, margins, np.asarray(classes))


def _xgboost_tree(tree: Any, target: int) -> Tree:
    if any(tree["split_type"]):
        raise NotConvertible("the XGBoost model has categorical features")
    values = np.array(tree["split_conditions"], dtype=np.float32).astype(np.float64)
    left, right, feature = (
        np.array(tree[name], dtype=np.int64) for name in ("left_children", "right_children", "split_indices")
    )
    return Tree(left, right, feature, values, np.array(tree["default_left"]) > 0, values, target)


def convert_lightgbm(graph: Graph, estimator: Any, rows: Rows) -> Prediction:
    """Add an LGBMClassifier or LGBMRegressor.

    Raises
    ------
    NotConvertible
        If it averages its trees, or has linear leaves, another objective, or categorical features.
    """
    model = estimator.booster_.dump_model()
    objective, *options = str(model.get("objective")).split()
    settings = dict(option.split(":", 1) for option in options if ":" in option)
    if objective not in ("binary", "multiclass", "regression") or "sqrt" in options:
        raise NotConvertible(f"the {type(estimator).__name__} has the objective {objective}")
    if model["average_output"] or float(settings.get("sigmoid", 1)) != 1:
        raise NotConvertible(
            f"the {type(estimator).__name__} averages its trees, or has a sigmoid other than 1"
        )
    targets = model["num_tree_per_iteration"]
    trees = [
        _lightgbm_tree(tree["tree_structure"], number % targets)
        for number, tree in enumerate(model["tree_info"])
    ]
    margins = add_trees(graph, rows.numbers(graph), trees, targets)
    classes = getattr(estimator, "classes_", None)
    if classes is None:
        return Prediction(graph.flat(margins))
    return of_margins(graph, margins, np.asarray(classes))


def _lightgbm_tree(root: Any, target: int) -> Tree:
    """Return the tree of nested nodes, numbered from the root."""
    nodes, left, right = [root], [], []
    for node in nodes:  # the list grows
        if "leaf_const" in node:
            raise NotConvertible("the LightGBM model has linear leaves")
        if "split_index" not in node:
            left.append(-1)
            right.append(-1)
            continue
        if node["decision_type"] != "<=" or node["missing_type"] == "Zero":
            raise NotConvertible("the LightGBM model has categorical features, or zeros as missing values")
        for way, side in ((left, "left_child"), (right, "right_child")):
            way.append(len(nodes))
            nodes.append(node[side])
    # Without missing values in the training rows, LightGBM takes a missing value for 0.
    missing = [
        node.get("default_left", True) if node.get("missing_type") == "NaN" else node.get("threshold", 0) >= 0
        for node in nodes
    ]
    return Tree(
        np.array(left),
        np.array(right),
        np.array([node.get("split_feature", 0) for node in nodes]),
        np.array([node.get("threshold", 0.0) for node in nodes], dtype=np.float64),
        np.array(missing, dtype=bool),
        np.array([node.get("leaf_value", 0.0) for node in nodes], dtype=np.float64),
        target,
    )
