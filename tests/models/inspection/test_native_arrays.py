"""Arrays of trusted types that would end the process: the model is refused before it predicts.

Each of these models is saved by skops, and passes the list of trusted types.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.cluster import KMeans
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier, LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, OneClassSVM
from sklearn.tree import DecisionTreeClassifier
from sklearn.tree._tree import Tree

from registry_tools.errors import VerificationError
from registry_tools.models.inspection.estimators import inspect_model
from registry_tools.models.trust_policy import TrustPolicy
from tests.support.crafted_models import load, save_model

_RANDOM = np.random.default_rng(0)
X = _RANDOM.normal(size=(90, 4))
Y = np.digitize(X[:, 0], [-0.5, 0.5])
FAR = 1 << 40
# What some of these estimators hold beyond the list of this project.
TRUST = (
    *("scipy.sparse._csr.csr_matrix", "functools.partial"),
    "sklearn.utils.validation.check_array",  # as a function, by histogram boosting with categories
)


def with_nodes(estimator: Any, change: Callable[[dict[str, Any]], Any]) -> Any:
    """Replace the state of the tree of a fitted decision tree."""
    _, arguments, state = estimator.tree_.__reduce__()
    changed = {**state, "nodes": state["nodes"].copy()}
    change(changed)
    estimator.tree_ = Tree(*arguments)
    estimator.tree_.__setstate__(changed)
    return estimator


def node(name: str, value: Any, index: int = 0) -> Callable[[dict[str, Any]], Any]:
    return lambda state: state["nodes"][name].__setitem__(index, value)


def tree(change: Callable[[dict[str, Any]], Any]) -> Any:
    return with_nodes(DecisionTreeClassifier().fit(X, Y), change)


def tree_without_columns() -> Any:
    model = DecisionTreeClassifier().fit(X, Y)
    del model.n_features_in_
    return model


def tree_of_other_columns() -> Any:
    model = DecisionTreeClassifier().fit(X, Y)
    model.n_features_in_ = 2
    return model


def forest_with_a_tree_of_more_columns() -> Any:
    model = RandomForestClassifier(3).fit(X, Y)
    model.estimators_[2] = DecisionTreeClassifier().fit(np.hstack([X, X]), Y)
    return model


def isolation_forest_of_other_columns() -> Any:
    model = IsolationForest(n_estimators=3, max_features=2).fit(X)
    model.estimators_features_[1] = model.estimators_features_[1][:1]
    return model


def boosting(change: Callable[[Any], Any]) -> Any:
    model = GradientBoostingClassifier(n_estimators=3).fit(X, Y)
    change(model)
    return model


def one_more_tree(model: Any) -> None:
    model.estimators_ = np.hstack([model.estimators_, model.estimators_[:, :1]])


def first_of_two_classes(model: Any) -> None:
    model.init_ = DummyClassifier(strategy="prior").fit(X, Y > 0)


def nothing_in_place_of_a_tree(model: Any) -> None:
    model.estimators_[0, 0] = LogisticRegression()


def histograms(name: str, value: Any, index: int = 0, **parameters: Any) -> Any:
    table = pd.DataFrame(X)
    table[3] = np.digitize(X[:, 0], [-0.5, 0.5]) if parameters else X[:, 3]
    model = HistGradientBoostingClassifier(max_iter=2, **parameters).fit(table.to_numpy(), Y)
    nodes = model._predictors[0][0].nodes
    if name == "bitset_idx":
        assert nodes["is_categorical"].any()
        nodes[name] = value
    else:
        nodes[name][index] = value
    return model


def neighbors(index: int, change: Callable[[Any], Any], algorithm: str = "kd_tree") -> Any:
    model = KNeighborsClassifier(algorithm=algorithm, leaf_size=5).fit(X, Y)
    state = list(model._tree.__getstate__())
    state[index] = change(state[index])
    model._tree = type(model._tree).__new__(type(model._tree))
    model._tree.__setstate__(tuple(state))
    return model


def nodes_with(name: str, value: Any) -> Callable[[Any], Any]:
    def change(nodes: Any) -> Any:
        changed = nodes.copy()
        changed[name] = value
        return changed

    return change


def weighted_neighbors() -> Any:
    parameters = {"p": 3, "metric_params": {"w": np.ones(4)}}
    model = KNeighborsClassifier(algorithm="ball_tree", metric="minkowski", **parameters).fit(X, Y)
    metric = model._tree.__getstate__()[11]
    metric.__setstate__((3.0, np.ones(1), np.empty((0, 0))))
    return model


def with_attributes(model: Any, **attributes: Any) -> Any:
    vars(model).update(attributes)
    return model


def support_vectors(**attributes: Any) -> Any:
    return with_attributes(SVC(probability=False).fit(X, Y), **attributes)


def sparse_matrix_of_other_columns() -> Any:
    matrix = sp.csr_matrix(np.eye(4))
    matrix.indices[0] = 1 << 30
    return with_attributes(LogisticRegression().fit(X, Y), coef_=matrix)


def random_state_outside_of_its_words() -> Any:
    generator = np.random.RandomState(0)
    state = generator.get_state(legacy=False)
    state["state"]["pos"] = 1 << 30
    generator.set_state(state)
    return with_attributes(LogisticRegression().fit(X, Y), random_state=generator)


MODELS: dict[str, tuple[Callable[[], Any], str]] = {
    "tree: child 2**40": (lambda: tree(node("left_child", FAR)), "a child is outside of its nodes"),
    "tree: cycle": (lambda: tree(node("right_child", 0)), "a child is outside of its nodes"),
    "tree: child -2": (lambda: tree(node("left_child", -2)), "a child is outside of its nodes"),
    "tree: one child": (lambda: tree(node("right_child", -1)), "a node has one child"),
    "tree: column 2**40": (lambda: tree(node("feature", FAR)), "a column that is not there"),
    "tree: column -3": (lambda: tree(node("feature", -3)), "a column that is not there"),
    "tree: deeper": (lambda: tree(lambda state: state.update(max_depth=0)), "it is deeper than it says"),
    "tree: no nodes": (lambda: tree(lambda state: state.update(node_count=0)), "it has no nodes"),
    "tree: no columns": (tree_without_columns, "n_features_in_"),
    "tree: other columns": (tree_of_other_columns, "its tree has other columns"),
    "forest": (forest_with_a_tree_of_more_columns, "a tree has other columns"),
    "isolation forest": (isolation_forest_of_other_columns, "a tree has other columns"),
    "boosting: trees a stage": (lambda: boosting(one_more_tree), "a stage has too many trees"),
    "boosting: first": (lambda: boosting(first_of_two_classes), "its first estimator has other outputs"),
    "boosting: no tree": (lambda: boosting(nothing_in_place_of_a_tree), "an entry is not a tree"),
    "histograms: child": (lambda: histograms("left", 4_000_000_000), "a child is outside of its nodes"),
    "histograms: cycle": (lambda: histograms("right", 0), "a child is outside of its nodes"),
    "histograms: column": (lambda: histograms("feature_idx", FAR), "a column that is not there"),
    "histograms: category": (lambda: histograms("is_categorical", 1), "categories"),
    "histograms: categories": (
        lambda: histograms("bitset_idx", 4_000_000_000, categorical_features=[3]),
        "a node uses categories that are not there",
    ),
    "KDTree: row": (lambda: neighbors(1, lambda index: index + FAR), "a row is outside of its data"),
    "BallTree: row": (lambda: neighbors(1, lambda i: i - FAR, "ball_tree"), "a row is outside of its data"),
    "KDTree: rows of a node": (
        lambda: neighbors(2, nodes_with("idx_end", FAR)),
        "a node is outside of its rows",
    ),
    "KDTree: no leaf": (lambda: neighbors(2, nodes_with("is_leaf", 0)), "a leaf has children"),
    "KDTree: nodes": (lambda: neighbors(6, lambda count: FAR), "it has too few nodes"),
    "KDTree: bounds": (lambda: neighbors(3, lambda bounds: bounds[:, :1].copy()), "it has too few bounds"),
    "KDTree: no metric": (lambda: neighbors(11, lambda metric: None), "it has no metric"),
    "BallTree: metric": (weighted_neighbors, "it has too few weights"),
    "neighbors: labels": (
        lambda: with_attributes(KNeighborsClassifier().fit(X, Y), _y=Y[:3]),
        "it has fewer labels than rows",
    ),
    "neighbors: columns": (
        lambda: with_attributes(LocalOutlierFactor(novelty=True).fit(X), _fit_X=X[:, :1]),
        "its rows have other columns",
    ),
    "vectors: counts": (
        lambda: support_vectors(_n_support=np.array([-(1 << 30), 1 << 30, 0], np.int32)),
        "it has no classes",
    ),
    "vectors: coefficients": (
        lambda: support_vectors(_dual_coef_=np.ones((1, 1))),
        "it has too few coefficients",
    ),
    "vectors: intercepts": (lambda: support_vectors(_intercept_=np.ones(1)), "it has too few intercepts"),
    "vectors: rows": (lambda: support_vectors(support_=np.full(3, 1 << 30, np.int32)), "outside of its rows"),
    "vectors: another kind": (
        lambda: with_attributes(OneClassSVM().fit(X), _impl="c_svc"),
        "another implementation",
    ),
    "centers": (
        lambda: with_attributes(KMeans(2, n_init=1).fit(X), cluster_centers_=np.ones((2, 1))),
        "its centers have other columns",
    ),
    "sparse matrix": (sparse_matrix_of_other_columns, "damaged csr_matrix"),
    "random state": (random_state_outside_of_its_words, "its position is outside of its state"),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("ignore:.*probability:FutureWarning")
def test_a_model_that_would_crash_the_process_is_refused(name: str, tmp_path: Path) -> None:
    make, message = MODELS[name]
    folder = save_model(tmp_path, make_pipeline(StandardScaler().fit(X), make()))
    with pytest.raises(VerificationError, match=message) as caught:
        load(folder, *TRUST)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_without_the_inspection_it_crashes(tmp_path: Path) -> None:
    folder = save_model(tmp_path, tree(node("left_child", FAR)))
    script = (
        "import sys, numpy, skops.io\n"
        "model = skops.io.load(sys.argv[1], trusted=['numpy.dtype', 'sklearn.tree._tree.Tree'])\n"
        "model.predict(numpy.zeros((1, 4)) - 9)"
    )
    command = [sys.executable, "-c", script, str(folder / "model.skops")]
    assert subprocess.run(command, check=False).returncode < 0  # a signal


@pytest.mark.parametrize(
    "model",
    [
        DecisionTreeClassifier(max_leaf_nodes=5, ccp_alpha=0.001),
        RandomForestClassifier(3),
        IsolationForest(n_estimators=3, max_features=2),
        GradientBoostingClassifier(n_estimators=3, init=LogisticRegression()),
        HistGradientBoostingClassifier(max_iter=2, categorical_features=[3]),
        KNeighborsClassifier(algorithm="ball_tree", p=3, metric_params={"w": np.ones(4)}),
        KMeans(2, n_init=1),
        SVC(random_state=np.random.RandomState(0)),
    ],
    ids=lambda model: type(model).__name__,
)
def test_what_scikit_learn_makes_is_taken(model: Any, tmp_path: Path) -> None:
    rows = np.hstack([X[:, :3], (X[:, 3:] > 0)])
    model.fit(rows, Y)
    loaded = load(save_model(tmp_path, model), *TRUST).estimator
    assert loaded.predict(rows).tolist() == model.predict(rows).tolist()


def test_every_object_of_a_model_is_found() -> None:
    bad = tree(node("left_child", FAR))
    array = np.empty(1, object)
    array[0] = {"a": ({bad: 1},)}
    for holder in (
        array,
        [array],
        {"key": array},
        make_pipeline(with_attributes(LogisticRegression(), a=array)),
    ):
        with pytest.raises(VerificationError, match="a child is outside of its nodes"):
            inspect_model(holder, TrustPolicy())
