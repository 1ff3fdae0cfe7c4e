"""Convert fitted classifiers and regressors, and the wrappers around them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from registry_tools.models.onnx import boosting, support_vectors
from registry_tools.models.onnx.graph import Graph
from registry_tools.models.onnx.other import convert_estimator as convert_other
from registry_tools.models.onnx.rows import NotConvertible, Prediction, Rows, best_class, of_margins
from registry_tools.models.onnx.steps import convert_step
from registry_tools.models.onnx.trees import Tree, add_trees, rounded, sklearn_tree


def convert_estimator(graph: Graph, estimator: Any, rows: Rows) -> Prediction:
    """Add a fitted classifier or regressor to a graph.

    Raises
    ------
    NotConvertible
        If it, or one of its parts, has no equivalent in ONNX.
    """
    kind = type(estimator)
    if np.ndim(getattr(estimator, "classes_", ())) > 1 or isinstance(
        getattr(estimator, "classes_", None), list
    ):
        raise NotConvertible(f"the {kind.__name__} predicts several classes for each row")
    convert = _ESTIMATORS.get(kind) or _BY_NAME.get(kind.__name__, convert_other)
    return convert(graph, estimator, rows)


def _pipeline(graph: Graph, estimator: Pipeline, rows: Rows) -> Prediction:
    for _, step in estimator.steps[:-1]:
        rows = convert_step(graph, step, rows)
    return convert_estimator(graph, estimator.steps[-1][1], rows)


def _frozen(graph: Graph, estimator: FrozenEstimator, rows: Rows) -> Prediction:
    return convert_estimator(graph, estimator.estimator, rows)


def _linear_classifier(graph: Graph, estimator: Any, rows: Rows) -> Prediction:
    return of_margins(graph, _linear(graph, estimator, rows), estimator.classes_)


def _linear_regressor(graph: Graph, estimator: Any, rows: Rows) -> Prediction:
    return Prediction(graph.flat(_linear(graph, estimator, rows)))


def _linear(graph: Graph, estimator: Any, rows: Rows) -> str:
    weights = graph.constant(np.atleast_2d(estimator.coef_).T)
    products = graph.add("MatMul", rows.numbers(graph), weights)
    return graph.add("Add", products, graph.constant(np.atleast_1d(estimator.intercept_)[None]))


def _forest(graph: Graph, estimator: Any, rows: Rows) -> Prediction:
    """Add the mean of trees: each class has its own copy of a tree, which ends in its probabilities."""
    members = getattr(estimator, "estimators_", [estimator])
    if estimator.n_outputs_ != 1:
        raise NotConvertible(f"the {type(estimator).__name__} predicts several numbers for each row")
    classes = getattr(estimator, "classes_", None)
    targets = len(classes) if classes is not None else 1
    trees = [
        sklearn_tree(member.tree_, member.tree_.value[:, 0, target], target)
        for member in members
        for target in range(targets)
    ]
    sums = add_trees(graph, rounded(graph, rows.numbers(graph)), trees, targets)
    means = graph.add("Div", sums, graph.constant(float(len(members))))
    if classes is None:
        return Prediction(graph.flat(means))
    return Prediction(best_class(graph, means), classes, means)


def _hist_gradient_boosting(graph: Graph, estimator: Any, rows: Rows) -> Prediction:
    if getattr(estimator, "_preprocessor", None) is not None:
        raise NotConvertible(f"the {type(estimator).__name__} has categorical features")
    trees = []
    for stage in estimator._predictors:
        for target, predictor in enumerate(stage):
            nodes, inner = predictor.nodes, predictor.nodes["is_leaf"] == 0
            left, right = (np.where(inner, nodes[way].astype(np.int64), -1) for way in ("left", "right"))
            missing = nodes["missing_go_to_left"] > 0
            split, feature = nodes["num_threshold"], nodes["feature_idx"]
            trees.append(Tree(left, right, feature, split, missing, nodes["value"], target))
    start = np.asarray(estimator._baseline_prediction, dtype=float).reshape(1, -1)
    sums = add_trees(graph, rows.numbers(graph), trees, start.shape[1])
    margins = graph.add("Add", sums, graph.constant(start))
    if isinstance(estimator, HistGradientBoostingClassifier):
        return of_margins(graph, margins, estimator.classes_)
    if estimator.loss in ("poisson", "gamma"):
        margins = graph.add("Exp", margins)
    return Prediction(graph.flat(margins))


def _gradient_boosting(graph: Graph, estimator: Any, rows: Rows) -> Prediction:
    if not isinstance(estimator.init_, str | DummyClassifier | DummyRegressor):
        raise NotConvertible(f"the {type(estimator).__name__} begins with a {type(estimator.init_).__name__}")
    trees = [
        sklearn_tree(member.tree_, estimator.learning_rate * member.tree_.value[:, 0, 0], target)
        for stage in estimator.estimators_
        for target, member in enumerate(stage)
    ]
    start = estimator._raw_predict_init(np.zeros((1, rows.width), np.float32))
    sums = add_trees(graph, rounded(graph, rows.numbers(graph)), trees, start.shape[1])
    margins = graph.add("Add", sums, graph.constant(start))
    if isinstance(estimator, GradientBoostingRegressor):
        return Prediction(graph.flat(margins))
    if estimator.loss != "log_loss":
        raise NotConvertible(f"the {type(estimator).__name__} has loss={estimator.loss!r}")
    return of_margins(graph, margins, estimator.classes_)


def _threshold(graph: Graph, estimator: FixedThresholdClassifier, rows: Rows) -> Prediction:
    inner = convert_estimator(graph, estimator.estimator_, rows)
    if inner.probabilities is None or estimator.response_method == "decision_function":
        raise NotConvertible("it has a threshold on scores that are not probabilities")
    classes = estimator.classes_
    positive = 1 if estimator.pos_label is None else int(np.flatnonzero(classes == estimator.pos_label)[0])
    limit = 0.5 if estimator.threshold == "auto" else float(estimator.threshold)
    score = graph.flat(graph.columns(inner.probabilities, [positive]))
    above = graph.cast(graph.add("GreaterOrEqual", score, graph.constant(limit)), np.int64)
    places = above if positive == 1 else graph.add("Sub", graph.constant(1, np.int64), above)
    return Prediction(places, classes, inner.probabilities)


def _calibrated(graph: Graph, estimator: CalibratedClassifierCV, rows: Rows) -> Prediction:
    """Add the mean of the calibrated classifiers."""
    total = None
    for member in estimator.calibrated_classifiers_:
        if member.method != "sigmoid":
            raise NotConvertible(f"it has a calibration by {member.method}; calibrate by sigmoid")
        inner = convert_estimator(graph, member.estimator, rows)
        scores = inner.decision or inner.probabilities
        if scores is None:
            raise NotConvertible(f"it calibrates a {type(member.estimator).__name__} without scores")
        if inner.decision is None and len(estimator.classes_) == 2:
            scores = graph.columns(scores, [1])
        if len(member.calibrators) != (len(estimator.classes_) if len(estimator.classes_) > 2 else 1):
            raise NotConvertible("a calibration fold of it lacks a class")
        slopes, offsets = (
            graph.constant([[getattr(each, name) for each in member.calibrators]]) for name in ("a_", "b_")
        )
        line = graph.add("Add", graph.add("Mul", scores, slopes), offsets)
        values = graph.add("Sigmoid", graph.add("Neg", line))
        if len(estimator.classes_) == 2:
            values = graph.join([graph.add("Sub", graph.constant(1.0), values), values])
        else:
            sums = graph.add("ReduceSum", values, graph.constant([1], np.int64), keepdims=1)
            values = graph.add("Div", values, sums)
        total = values if total is None else graph.add("Add", total, values)
    assert total is not None
    means = graph.add("Div", total, graph.constant(float(len(estimator.calibrated_classifiers_))))
    return Prediction(best_class(graph, means), estimator.classes_, means)


def _transformed_target(graph: Graph, estimator: TransformedTargetRegressor, rows: Rows) -> Prediction:
    scaler = estimator.transformer_
    if type(scaler) is not StandardScaler:
        raise NotConvertible(f"it transforms its labels by a {type(scaler).__name__}")
    value = convert_estimator(graph, estimator.regressor_, rows).value
    value = graph.add("Mul", value, graph.constant(float(scaler.scale_[0])))
    return Prediction(graph.add("Add", value, graph.constant(float(scaler.mean_[0]))))


_Convert = Callable[[Graph, Any, Rows], Prediction]
_ESTIMATORS: Mapping[type, _Convert] = {
    Pipeline: _pipeline,
    FrozenEstimator: _frozen,
    FixedThresholdClassifier: _threshold,
    CalibratedClassifierCV: _calibrated,
    TransformedTargetRegressor: _transformed_target,
    LogisticRegression: _linear_classifier,
    LinearRegression: _linear_regressor,
    Ridge: _linear_regressor,
    SVC: support_vectors.convert_classifier,
    SVR: support_vectors.convert_regressor,
    GradientBoostingClassifier: _gradient_boosting,
    GradientBoostingRegressor: _gradient_boosting,
    HistGradientBoostingClassifier: _hist_gradient_boosting,
    HistGradientBoostingRegressor: _hist_gradient_boosting,
    **dict.fromkeys((RandomForestClassifier, ExtraTreesClassifier, DecisionTreeClassifier), _forest),
    **dict.fromkeys((RandomForestRegressor, ExtraTreesRegressor, DecisionTreeRegressor), _forest),
}
# Their packages may be missing.
_BY_NAME: Mapping[str, _Convert] = {
    **dict.fromkeys(("XGBClassifier", "XGBRegressor"), boosting.convert_xgboost),
    **dict.fromkeys(("LGBMClassifier", "LGBMRegressor"), boosting.convert_lightgbm),
}
