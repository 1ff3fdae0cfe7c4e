"""Compute the contributions of the columns to predictions: exactly for linear models, by SHAP for trees."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.pipeline import Pipeline
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from registry_tools.errors import UnsupportedOperation
from registry_tools.models.explanation.prepared_columns import prepare

LOG_ODDS, PROBABILITY, PREDICTION, SCORE = "log-odds", "probability", "prediction", "score"

_VOTING = (DecisionTreeClassifier, RandomForestClassifier, ExtraTreesClassifier)
_BOOSTED = (HistGradientBoostingClassifier, HistGradientBoostingRegressor)
_AVERAGING = (DecisionTreeRegressor, RandomForestRegressor, ExtraTreesRegressor)
_TOLERANCE = 1e-4  # XGBoost adds 32-bit numbers
_SUPPORTED = (
    "linear models, such as logistic_regression, linear and ridge, and trees (random_forest, "
    "hist_gradient_boosting, xgboost, lightgbm) have contributions"
)


@dataclass(frozen=True)
class Explanation:
    """The contributions of the columns to the predictions of some rows.

    For each row, `base` plus all contributions is the score of the predicted class, or the predicted
    number. A column with a positive contribution raises it.
    """

    columns: tuple[str, ...]
    contributions: npt.NDArray[np.float64]  # shape (rows, columns)
    base: npt.NDArray[np.float64]  # shape (rows,)
    scale: str  # `log-odds`, `probability`, `prediction` (a number), or `score` (another decision value)
    note: str | None = None  # a step of the model that follows the score

    @property
    def scores(self) -> npt.NDArray[np.float64]:
        """The explained score of each row: `base` plus its contributions, shape (rows,)."""
        return self.base + self.contributions.sum(axis=1)


@dataclass(frozen=True)
class _Parts:
    """Contributions, shape (rows, raw columns, outputs), with base values and scores (rows, outputs)."""

    contributions: npt.NDArray[np.float64]
    base: npt.NDArray[np.float64]
    scores: npt.NDArray[np.float64]
    scale: str

    def for_two_classes(self) -> _Parts:
        """Return the parts of both classes from those of the second."""
        contributions, base, scores = (
            np.concatenate([-x, x], axis=-1) for x in (self.contributions, self.base, self.scores)
        )
        return _Parts(contributions, base, scores, self.scale)


def explain(estimator: Any, rows: Any, predicted: npt.NDArray[Any]) -> Explanation:
    """Return the contributions of the columns to predictions.

    Parameters
    ----------
    estimator
        A fitted scikit-learn estimator, with or without a pipeline before it.
    rows
        A DataFrame or an array, in the columns and types of the estimator.
    predicted
        The predictions of the estimator for the rows, shape (rows,).

    Raises
    ------
    UnsupportedOperation
        If the estimator is neither linear nor made of trees, mixes columns, or needs a package that is
        not installed.
    """
    names = getattr(rows, "columns", range(rows.shape[1]))
    model, prepared, sources, note = _innermost(estimator, rows)
    membership = (sources[:, None] == np.arange(len(names))).astype(float)
    parts = _parts(model, prepared, membership)
    classes = getattr(estimator, "classes_", None) if is_classifier(model) else None
    if classes is not None and len(classes) == 2 and parts.base.shape[1] == 1:
        # A model with one score for two classes: the score of the first is the negative one.
        parts = parts.for_two_classes()
    outputs = 1 if classes is None else len(classes)
    if predicted.ndim != 1 or parts.base.shape[1] != outputs:
        raise UnsupportedOperation("predicts several outputs: contributions explain one")
    place = np.zeros(len(predicted), int) if classes is None else np.searchsorted(classes, predicted)
    row = np.arange(len(predicted))
    found = Explanation(
        tuple(map(str, names)), parts.contributions[row, :, place], parts.base[row, place], parts.scale, note
    )
    if not np.allclose(found.scores, parts.scores[row, place], rtol=_TOLERANCE, atol=_TOLERANCE):
        raise UnsupportedOperation(
            f"is a {type(model).__name__} whose contributions do not add up to its {parts.scale}, such as "
            "one with a link function or with categories: they cannot explain it"
        )
    return found


def _innermost(estimator: Any, rows: Any) -> tuple[Any, Any, npt.NDArray[np.intp], str | None]:
    """Return the estimator within pipelines, calibration and threshold, with the rows that it takes."""
    sources, later = np.arange(rows.shape[1]), []
    while True:
        if isinstance(estimator, Pipeline):
            *steps, estimator = (step for _, step in estimator.steps)
            rows, found = prepare(steps, rows)
            sources = sources[found]
        elif isinstance(estimator, FixedThresholdClassifier):
            estimator = estimator.estimator_
            later.append("threshold")
        elif isinstance(estimator, FrozenEstimator):
            estimator = estimator.estimator
        elif isinstance(estimator, CalibratedClassifierCV) and len(estimator.calibrated_classifiers_) == 1:
            estimator = estimator.calibrated_classifiers_[0].estimator
            later.append("calibration")
        else:
            note = f"the score before {' and '.join(later[::-1])}" if later else None
            return estimator, rows, sources, note


def _parts(model: Any, rows: Any, membership: npt.NDArray[np.float64]) -> _Parts:
    """Return the contributions of raw columns; `membership` has shape (prepared, raw columns)."""
    if hasattr(model, "get_booster"):
        return _of_columns(*_xgboost(model, rows), membership)
    if hasattr(model, "booster_"):
        return _of_columns(*_lightgbm(model, rows), membership)
    if isinstance(model, (*_VOTING, *_AVERAGING, *_BOOSTED)):
        return _of_columns(*_shap(model, rows), membership)
    if hasattr(model, "coef_") and hasattr(model, "intercept_"):
        return _linear(model, rows, membership)
    raise UnsupportedOperation(f"is a {type(model).__name__}, which has no contributions: {_SUPPORTED}")


def _linear(model: Any, rows: Any, membership: npt.NDArray[np.float64]) -> _Parts:
    given = (
        rows if hasattr(rows, "toarray") else np.asarray(rows, dtype=float)
    )  # a sparse matrix stays sparse
    contributions = [given @ (row[:, None] * membership) for row in np.atleast_2d(model.coef_)]
    scale = SCORE if is_classifier(model) else PREDICTION
    scale = LOG_ODDS if isinstance(model, LogisticRegression) else scale
    scores = _two_dimensional(_decision_values(model, rows))
    base = np.broadcast_to(np.atleast_1d(model.intercept_), scores.shape)
    return _Parts(np.stack(contributions, axis=-1), base, scores, scale)


def _decision_values(model: Any, rows: Any) -> Any:
    return model.decision_function(rows) if is_classifier(model) else model.predict(rows)


def _two_dimensional(values: Any) -> npt.NDArray[np.float64]:
    return np.asarray(values, dtype=float).reshape(len(values), -1)


def _of_columns(
    contributions: Any, base: Any, scores: Any, scale: str, membership: npt.NDArray[np.float64]
) -> _Parts:
    """Sum contributions of prepared columns, shape (rows, prepared columns[, outputs])."""
    scores = _two_dimensional(scores)
    values = np.asarray(contributions, dtype=float).reshape(*np.shape(contributions)[:2], -1)
    summed = np.einsum("rpo,pc->rco", values, membership)
    return _Parts(summed, np.broadcast_to(base, scores.shape), scores, scale)


def _shap(model: Any, rows: Any) -> tuple[Any, Any, Any, str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its plots, which are imported too, use old names of matplotlib
            import shap
    except ImportError as error:
        raise UnsupportedOperation(
            f"is a {type(model).__name__}, whose contributions need the package shap: "
            "pip install 'registry-pipeline[explain]'"
        ) from error
    explainer = shap.TreeExplainer(model, feature_perturbation="tree_path_dependent")
    dense = rows.toarray() if hasattr(rows, "toarray") else np.asarray(rows, dtype=float)
    values = explainer.shap_values(dense, check_additivity=False)  # the caller checks
    if isinstance(model, _VOTING):
        return values, explainer.expected_value, model.predict_proba(rows), PROBABILITY
    scale = LOG_ODDS if is_classifier(model) else PREDICTION
    return values, explainer.expected_value, _decision_values(model, rows), scale


def _xgboost(model: Any, rows: Any) -> tuple[Any, Any, Any, str]:
    import xgboost

    booster, best = model.get_booster(), getattr(model, "best_iteration", None)
    matrix = xgboost.DMatrix(rows, missing=model.missing, feature_names=booster.feature_names)
    iterations = (0, 0 if best is None else best + 1)  # 0 stands for all
    values = booster.predict(matrix, pred_contribs=True, iteration_range=iterations)
    values = np.moveaxis(values, -1, 1)  # (rows, columns and base[, outputs])
    base = values[:, -1].reshape(len(values), -1)
    return values[:, :-1], base, *_boosted_scores(model, rows, output_margin=True)


def _lightgbm(model: Any, rows: Any) -> tuple[Any, Any, Any, str]:
    values = model.predict(rows, pred_contrib=True)  # (rows, outputs times columns and base)
    values = values.reshape(len(values), -1, model.n_features_in_ + 1).swapaxes(1, 2)
    return values[:, :-1], values[:, -1], *_boosted_scores(model, rows, raw_score=True)


def _boosted_scores(model: Any, rows: Any, **as_score: bool) -> tuple[Any, str]:
    """Return scores and scale; a regressor with a link function, such as Poisson, has other scores."""
    if is_classifier(model):
        return model.predict(rows, **as_score), LOG_ODDS
    return model.predict(rows), PREDICTION
