"""Contributions add up to the score of the predicted class, and belong to the raw columns."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import LinearRegression, LogisticRegression, PoissonRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC

from pipeline.data.dataset import Dataset
from pipeline.data.load import load_dataset
from pipeline.params.definitions import TrainParams
from pipeline.training.fit_pipeline import fit_pipeline
from pipeline.training.model_pipeline import resolve_model
from registry_tools.errors import UnsupportedOperation
from registry_tools.models.explanation.contributions import Explanation, explain

EXACT = 1e-6


def mixed_table(folder: Path, label: str) -> Path:
    """Write a table with numbers, text, many texts, dates, booleans and missing values."""
    rng, rows = np.random.default_rng(3), 200
    width, town = rng.normal(10, 3, rows), rng.choice(["Bonn", "Köln", "Ulm"], rows)
    tame = rng.random(rows) < 0.5
    value = width + 4 * (town == "Köln") + 2 * tame + rng.normal(0, 1, rows)
    table = pd.DataFrame(
        {
            "width": width,
            "town": town,
            "code": [f"c{number}" for number in rng.integers(0, 150, rows)],
            "when": pd.date_range("2024-01-01", periods=rows, freq="31h").strftime("%Y-%m-%d %H:%M"),
            "tame": tame,
        }
    )
    for name in ("width", "town", "code", "when"):
        table[name] = table[name].astype(object).where(rng.random(rows) > 0.1, None)
    named = np.array(["low", "middle", "high"])[np.digitize(value, [10, 14])]
    labels = {"number": value, "two": np.where(value > 12, "yes", "no"), "three": named}
    path = folder / "mixed.csv"
    table.assign(label=labels[label]).to_csv(path, index=False)
    return path


def fitted(path: Path | str, **options: Any) -> tuple[Pipeline, Dataset]:
    """Return a fitted pipeline and its rows."""
    target = {} if path == "iris" else {"data": str(path), "target": "label", "name": "own"}
    params = TrainParams(**target, **options)
    dataset = load_dataset(params)
    params = resolve_model(params, dataset)
    return fit_pipeline(params, dataset.features, dataset), dataset


def scores(estimator: Any, rows: Any, scale: str) -> npt.NDArray[np.float64]:
    """Return the score of the predicted class, or the number, by the estimator's own methods."""
    if scale == "prediction":
        return estimator.predict(rows)
    if scale == "probability":
        return estimator.predict_proba(rows).max(axis=1)
    if hasattr(estimator, "decision_function"):
        found = estimator.decision_function(rows)
    else:  # a difference of logarithms loses digits of the 32-bit probabilities of XGBoost
        option = "output_margin" if hasattr(estimator[-1], "get_booster") else "raw_score"
        found = estimator[-1].predict(estimator[:-1].transform(rows), **{option: True})
    return np.abs(found) if found.ndim == 1 else found.max(axis=1)


@pytest.mark.parametrize(
    ("label", "model", "scale"),
    [
        ("two", "logistic_regression", "log-odds"),
        ("three", "logistic_regression", "log-odds"),
        ("two", "random_forest", "probability"),
        ("three", "random_forest", "probability"),
        ("two", "hist_gradient_boosting", "log-odds"),
        ("three", "hist_gradient_boosting", "log-odds"),
        ("number", "ridge", "prediction"),
        ("number", "linear", "prediction"),
        ("number", "random_forest", "prediction"),
        ("number", "hist_gradient_boosting", "prediction"),
        ("two", "xgboost", "log-odds"),
        ("three", "xgboost", "log-odds"),
        ("number", "xgboost", "prediction"),
        ("two", "lightgbm", "log-odds"),
        ("three", "lightgbm", "log-odds"),
        ("number", "lightgbm", "prediction"),
    ],
)
def test_base_and_contributions_add_up_to_the_score(
    label: str, model: str, scale: str, tmp_path: Path
) -> None:
    few: dict[str, Any] = {"model_params": {"n_estimators": 10}} if model == "random_forest" else {}
    if model in {"hist_gradient_boosting", "xgboost", "lightgbm"}:
        few = {"max_iter": 20}
    estimator, dataset = fitted(mixed_table(tmp_path, label), model=model, **few)
    rows = dataset.features.head(40)
    found = explain(estimator, rows, estimator.predict(rows))
    assert found.scale == scale
    assert found.columns == ("width", "town", "code", "when", "tame")
    assert found.scores == pytest.approx(scores(estimator, rows, scale), rel=EXACT, abs=EXACT)
    assert found.note is None
    largest = np.abs(found.contributions).mean(axis=0)
    assert largest[0] == largest.max()
    assert largest.min() > EXACT


@pytest.mark.parametrize("label", ["three", "number"])
def test_a_change_of_one_column_changes_only_its_contribution(label: str, tmp_path: Path) -> None:
    estimator, dataset = fitted(mixed_table(tmp_path, label), model="auto")
    rows = dataset.features.head(40).reset_index(drop=True)
    predicted = estimator.predict(rows)
    before = explain(estimator, rows, predicted)
    for place, name in enumerate(rows):
        changed = rows.assign(**{name: rows[name].iloc[::-1].to_numpy()})
        moved = explain(estimator, changed, predicted).contributions - before.contributions
        assert np.delete(moved, place, axis=1) == pytest.approx(0, abs=EXACT)
        assert np.abs(moved[:, place]).max() > EXACT


def test_a_model_without_preparation_is_explained(tmp_path: Path) -> None:
    estimator, dataset = fitted("iris")
    found = explain(estimator, dataset.features, estimator.predict(dataset.features))
    values = estimator.decision_function(dataset.features).max(axis=1)
    assert found.scores == pytest.approx(values, abs=EXACT)
    first = estimator[-1].coef_[estimator.predict(dataset.features)] * dataset.features.to_numpy()
    assert found.contributions == pytest.approx(first, abs=EXACT)


@pytest.mark.parametrize(
    ("options", "note"),
    [
        ({"calibrate": "isotonic"}, "the score before calibration"),
        ({"calibrate": "sigmoid", "threshold": "f1_macro"}, "the score before calibration and threshold"),
    ],
)
def test_calibration_and_threshold_are_left_out_and_the_result_says_so(
    options: dict[str, Any], note: str, tmp_path: Path
) -> None:
    estimator, dataset = fitted(mixed_table(tmp_path, "two"), drop=("code", "when"), **options)
    predicted = estimator.predict(dataset.features)
    found = explain(estimator, dataset.features, predicted)
    assert (found.note, found.scale) == (note, "log-odds")
    signed = np.where(predicted == 1, found.scores, -found.scores)
    probabilities = estimator.predict_proba(dataset.features)[:, 1]
    order = np.argsort(signed)
    assert (np.diff(probabilities[order]) >= -EXACT).all()


def iris_rows() -> tuple[pd.DataFrame, pd.Series]:
    table = load_iris(as_frame=True)
    return table.data.assign(kind=np.where(np.arange(150) % 2, "odd", "even")), table.target


@pytest.mark.parametrize(
    "preparation",
    [
        make_column_transformer((OneHotEncoder(drop="first"), ["kind"]), remainder="passthrough"),
        make_column_transformer((TfidfVectorizer(), "kind"), (StandardScaler(), slice(0, 4))),
        make_pipeline(
            make_column_transformer((OneHotEncoder(), [4]), (StandardScaler(), [0, 1])), SelectKBest(k=3)
        ),
    ],
)
def test_transformers_of_other_projects_are_traced_to_their_columns(preparation: Any) -> None:
    rows, labels = iris_rows()
    estimator = make_pipeline(preparation, LinearSVC()).fit(rows, labels)
    found = explain(estimator, rows, estimator.predict(rows))
    assert found.scale == "score"
    assert found.scores == pytest.approx(estimator.decision_function(rows).max(axis=1), abs=EXACT)
    before = found.contributions
    other = rows.assign(kind="odd")
    moved = explain(estimator, other, estimator.predict(rows)).contributions - before
    assert moved[:, :4] == pytest.approx(0, abs=EXACT)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (make_pipeline(PCA(4), LogisticRegression()), "has a PCA, whose results cannot be traced"),
        (PoissonRegressor(), "is a PoissonRegressor whose contributions do not add up"),
    ],
)
def test_a_model_whose_contributions_would_be_wrong_is_refused(model: Any, message: str) -> None:
    rows = iris_rows()[0].drop(columns="kind")
    model.fit(rows, iris_rows()[1])
    with pytest.raises(UnsupportedOperation, match=message):
        explain(model, rows, model.predict(rows))


def test_several_outputs_are_refused() -> None:
    rows = iris_rows()[0].drop(columns="kind")
    model = LinearRegression().fit(rows, rows)
    with pytest.raises(UnsupportedOperation, match="several outputs"):
        explain(model, rows, model.predict(rows))


def test_trees_without_shap_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    estimator, dataset = fitted("iris", model="random_forest", model_params={"n_estimators": 2})
    monkeypatch.setitem(sys.modules, "shap", None)  # Python raises ImportError for it
    with pytest.raises(UnsupportedOperation, match=r"pip install 'registry-pipeline\[explain\]'"):
        explain(estimator, dataset.features, estimator.predict(dataset.features))


def test_the_score_of_an_explanation_is_base_plus_contributions() -> None:
    found = Explanation(("a", "b"), np.array([[1.0, 2.0]]), np.array([0.5]), "score")
    assert found.scores.tolist() == [3.5]
