"""Check arrays that compiled code indexes without bounds checks, such as the nodes of trees.

For example, scikit-learn follows the node numbers of a tree unchecked, so that a number out of range
ends the process with a segmentation fault. The checks of this module read the arrays with NumPy only,
and raise an error.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.cluster._kmeans import _BaseKMeans
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import IsolationForest
from sklearn.ensemble._forest import BaseForest
from sklearn.ensemble._gb import BaseGradientBoosting
from sklearn.ensemble._hist_gradient_boosting.common import PREDICTOR_RECORD_DTYPE
from sklearn.ensemble._hist_gradient_boosting.gradient_boosting import BaseHistGradientBoosting
from sklearn.ensemble._hist_gradient_boosting.predictor import TreePredictor
from sklearn.neighbors._ball_tree import BallTree32, BallTree64
from sklearn.neighbors._kd_tree import KDTree32, KDTree64
from sklearn.preprocessing import FunctionTransformer, OrdinalEncoder
from sklearn.svm._base import BaseLibSVM
from sklearn.tree import BaseDecisionTree
from sklearn.tree._tree import Tree

from registry_tools.errors import VerificationError

_LEAF = -1
_MT19937_WORDS = 624


def check_native_arrays(value: Any) -> None:
    """Refuse an object whose arrays would make compiled code read or write out of range.

    Raises
    ------
    VerificationError
        If the object is refused; the message names the class and its fault.
    ValueError, TypeError, AttributeError, LookupError, ArithmeticError
        If an attribute is missing, or does not have the type that scikit-learn writes.
    """
    for types, check in _CHECKS:
        if isinstance(value, types):
            check(value)
    if issparse(value) and value.format in ("csr", "csc", "bsr"):
        value.check_format(full_check=True)
    if isinstance(value, BaseEstimator) and "_fit_X" in vars(value):
        _check_neighbors(value)


def check_stages(value: Any) -> None:
    """Refuse gradient boosting if its first predictions have fewer columns than a stage has trees.

    Raises
    ------
    VerificationError
        If the object is refused: its trees would write out of range.
    """
    if not isinstance(value, BaseGradientBoosting):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first = value._raw_predict_init(np.zeros((1, value.n_features_in_)))
    _require(first.shape == (1, value.estimators_.shape[1]), value, "its first estimator has other outputs")


def _require(condition: Any, value: Any, what: str) -> None:
    if not condition:
        raise VerificationError(
            f"the model holds a {type(value).__name__} that would crash the process: {what}; train it again, "
            "or load another version"
        )


def _inside(numbers: npt.NDArray[Any], low: Any, high: Any) -> bool:
    """Return whether all numbers are at least `low` and less than `high`."""
    return bool(np.all((numbers >= low) & (numbers < high)))


def _check_tree(tree: Tree) -> None:
    _require(tree.node_count >= 1, tree, "it has no nodes")
    _require(tree.node_count <= tree.capacity, tree, "it has fewer nodes than it says")
    _require(tree.n_outputs >= 1 and tree.max_n_classes >= 1, tree, "it has no outputs")
    left, right = tree.children_left, tree.children_right
    inner = left != _LEAF
    _require(np.array_equal(inner, right != _LEAF), tree, "a node has one child")
    # Each child must come after its parent, which excludes cycles.
    parents = np.flatnonzero(inner)
    for children in (left[inner], right[inner]):
        _require(_inside(children, parents + 1, tree.node_count), tree, "a child is outside of its nodes")
    _require(_inside(tree.feature[inner], 0, tree.n_features), tree, "a node uses a column that is not there")
    depth = int(tree.compute_node_depths().max()) - 1
    _require(depth <= tree.max_depth, tree, "it is deeper than it says")


def _check_decision_tree(estimator: BaseDecisionTree) -> None:
    if "tree_" in vars(estimator):
        tree = estimator.tree_
        _require(isinstance(tree, Tree), estimator, "its nodes are no tree")
        _require(tree.n_features == estimator.n_features_in_, estimator, "its tree has other columns")


def _check_trees(ensemble: Any) -> None:
    """Check a forest or gradient boosting, which passes rows to its trees without further checks."""
    if "estimators_" not in vars(ensemble):
        return
    if isinstance(ensemble, BaseGradientBoosting):
        shape = np.shape(ensemble.estimators_)
        _require(isinstance(ensemble.estimators_, np.ndarray) and len(shape) == 2, ensemble, "no stages")
        _require(shape[1] == ensemble.n_trees_per_iteration_, ensemble, "a stage has too many trees")
    columns = ensemble.n_features_in_
    trees = np.ravel(np.asarray(ensemble.estimators_, dtype=object))
    _require(len(trees) >= 1, ensemble, "it has no trees")
    features = [None] * len(trees)
    if isinstance(ensemble, IsolationForest):
        features = ensemble.estimators_features_
        _require(len(features) == len(trees), ensemble, "it does not have the columns of each tree")
    for tree, chosen in zip(trees, features, strict=True):
        expected = columns if chosen is None else len(chosen)
        _require(isinstance(tree, BaseDecisionTree), ensemble, "an entry is not a tree")
        _require(isinstance(tree.tree_, Tree), ensemble, "it holds a tree without nodes")
        _require(tree.tree_.n_features == expected, ensemble, "a tree has other columns")
        if chosen is not None and ensemble._max_features == columns:  # each tree gets all columns
            _require(len(chosen) == columns, ensemble, "a tree has other columns")


def _check_tree_predictor(predictor: TreePredictor) -> None:
    nodes, bitsets = predictor.nodes, predictor.raw_left_cat_bitsets
    _require(isinstance(nodes, np.ndarray) and nodes.dtype == PREDICTOR_RECORD_DTYPE, predictor, "no nodes")
    _require(nodes.ndim == 1 and len(nodes) >= 1, predictor, "it has no nodes")
    inner = nodes["is_leaf"] == 0
    parents = np.flatnonzero(inner)
    for side in ("left", "right"):
        _require(
            _inside(nodes[side][inner], parents + 1, len(nodes)), predictor, "a child is outside of its nodes"
        )
    categorical = nodes["bitset_idx"][inner & (nodes["is_categorical"] != 0)]
    for sets in (bitsets, predictor.binned_left_cat_bitsets):
        _require(isinstance(sets, np.ndarray) and sets.ndim == 2, predictor, "it has no sets of categories")
        _require(sets.shape[1] == 8, predictor, "its sets of categories are too small")  # 256 bits
        _require(_inside(categorical, 0, len(sets)), predictor, "a node uses categories that are not there")


def _check_hist_gradient_boosting(model: BaseHistGradientBoosting) -> None:
    if "_predictors" not in vars(model):
        return
    columns = model.n_features_in_
    flags = model._bin_mapper.is_categorical_
    _require(flags.shape == (columns,), model, "its bins have other columns")
    for predictor in (each for stage in model._predictors for each in stage):
        _require(isinstance(predictor, TreePredictor), model, "an entry is not a tree")
        nodes = predictor.nodes[predictor.nodes["is_leaf"] == 0]
        _require(_inside(nodes["feature_idx"], 0, columns), model, "a node uses a column that is not there")
        used = nodes["feature_idx"][nodes["is_categorical"] != 0]
        _require(flags[used].all(), model, "a node takes numbers for categories")
    if getattr(model, "_preprocessor", None) is not None:
        _require(_width(model._preprocessor) == columns, model, "its preprocessor changes the columns")


def _width(preprocessor: ColumnTransformer) -> int:
    """Return the number of columns that the preprocessor of histogram gradient boosting returns."""
    width = 0
    for _, transformer, columns in preprocessor.transformers_:
        if isinstance(transformer, (OrdinalEncoder, FunctionTransformer)) or transformer == "passthrough":
            width += np.count_nonzero(columns) if np.asarray(columns).dtype == bool else len(columns)
    return width


def _check_binary_tree(tree: Any) -> None:
    data, index, nodes, bounds = (np.asarray(array) for array in tree.get_arrays())
    leaf_size, n_levels, n_nodes = tree.__getstate__()[4:7]
    metric, weights = tree.__getstate__()[11:13]
    rows, columns = data.shape
    _require(metric is not None, tree, "it has no metric")
    _require(rows >= 1 and columns >= 1 and leaf_size >= 1, tree, "it has no rows")
    _require(index.shape == (rows,) and _inside(index, 0, rows), tree, "a row is outside of its data")
    _require(n_nodes == (1 << n_levels) - 1 and nodes.shape == (n_nodes,), tree, "it has too few nodes")
    sides = 1 if isinstance(tree, (BallTree32, BallTree64)) else 2
    _require(bounds.shape == (sides, n_nodes, columns), tree, "it has too few bounds")
    start, end = nodes["idx_start"], nodes["idx_end"]
    _require(
        _inside(start, 0, rows + 1) and _inside(end, start, rows + 1), tree, "a node is outside of its rows"
    )
    lowest = 2 * np.arange(n_nodes) + 1 >= n_nodes
    _require(np.all(nodes["is_leaf"][lowest] != 0), tree, "a leaf has children")
    _require(weights is None or np.shape(weights) == (rows,), tree, "it has too few weights")
    vector, matrix = metric.__getstate__()[1:3]
    if type(metric).__name__.startswith(("Minkowski", "SEuclidean")):
        _require(len(vector) in (0, columns), metric, "it has too few weights")
    if type(metric).__name__.startswith("Mahalanobis"):
        _require(matrix.shape == (columns, columns), metric, "its matrix is too small")


def _check_neighbors(estimator: Any) -> None:
    fitted, columns = vars(estimator)["_fit_X"], estimator.n_features_in_
    rows = fitted.shape[0]
    _require(fitted.shape == (rows, columns), estimator, "its rows have other columns")
    attributes = vars(estimator)
    _require(attributes.get("n_samples_fit_", rows) == rows, estimator, "it has fewer rows than it says")
    labels = attributes.get("_y")
    _require(labels is None or len(labels) == rows, estimator, "it has fewer labels than rows")
    tree = attributes.get("_tree")
    _require(tree is None or np.shape(tree.data) == fitted.shape, estimator, "its tree has other rows")


def _check_support_vectors(model: BaseLibSVM) -> None:
    if "support_" not in vars(model):
        return
    _require("_impl" not in vars(model), model, "it has another implementation than its class")
    vectors, counts = len(model.support_), model._n_support
    classes = len(counts)
    pairs = classes * (classes - 1) // 2
    rows = model.shape_fit_[0]
    _require(_inside(np.asarray(model.support_), 0, rows), model, "a support vector is outside of its rows")
    _require(classes >= 2 and np.min(counts) >= 0, model, "it has no classes")
    classifier = model._impl in ("c_svc", "nu_svc")
    total = int(np.sum(counts, dtype=np.int64))
    _require(not classifier or total == vectors, model, "its classes have other numbers of support vectors")
    _require(model._dual_coef_.shape == (classes - 1, vectors), model, "it has too few coefficients")
    _require(model._intercept_.shape == (pairs,), model, "it has too few intercepts")
    for probabilities in (model._probA, model._probB):
        _require(probabilities.shape in ((0,), (pairs,)), model, "it has too few probabilities")
    _require(model._probA.shape == model._probB.shape, model, "it has too few probabilities")
    if model.kernel != "precomputed" and not callable(model.kernel):
        shape = (vectors, model.n_features_in_)
        _require(model.support_vectors_.shape == shape, model, "it has too few support vectors")


def _check_centers(model: _BaseKMeans) -> None:
    if "cluster_centers_" in vars(model):
        shape = model.cluster_centers_.shape
        _require(
            shape[0] >= 1 and shape[1:] == (model.n_features_in_,), model, "its centers have other columns"
        )


def _check_random_state(generator: Any) -> None:
    bits = generator if isinstance(generator, np.random.RandomState) else generator.bit_generator
    state = bits.get_state(legacy=False) if isinstance(bits, np.random.RandomState) else bits.state
    position = state["state"].get("pos", 0) if isinstance(state["state"], dict) else 0
    _require(0 <= position <= _MT19937_WORDS, generator, "its position is outside of its state")
    _require(0 <= state.get("buffer_pos", 0) <= 4, generator, "its position is outside of its buffer")


_CHECKS: tuple[tuple[Any, Callable[[Any], None]], ...] = (
    (Tree, _check_tree),
    (BaseDecisionTree, _check_decision_tree),
    ((BaseForest, BaseGradientBoosting, IsolationForest), _check_trees),
    (TreePredictor, _check_tree_predictor),
    (BaseHistGradientBoosting, _check_hist_gradient_boosting),
    ((KDTree32, KDTree64, BallTree32, BallTree64), _check_binary_tree),
    (BaseLibSVM, _check_support_vectors),
    (_BaseKMeans, _check_centers),
    ((np.random.RandomState, np.random.Generator), _check_random_state),
)
