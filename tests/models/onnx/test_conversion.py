"""ONNX files: which estimators convert, and that the files predict the same labels and numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler, TargetEncoder
from sklearn.svm import SVC, SVR

from registry_tools.data.dates import date_parts
from registry_tools.data.schema import Column
from registry_tools.errors import UnsupportedOperation
from registry_tools.models.loaded_model import LoadedModel, ModelInfo
from registry_tools.models.onnx.check import check_onnx, open_session, run
from registry_tools.models.onnx.convert import to_onnx
from registry_tools.models.onnx.export import convert_and_check

CLASSIFIERS = {
    "logistic_regression": make_pipeline(StandardScaler(), LogisticRegression()),
    "random_forest": RandomForestClassifier(20, random_state=0),
    "gradient_boosting": GradientBoostingClassifier(n_estimators=10, random_state=0),
    "hist_gradient_boosting": HistGradientBoostingClassifier(max_iter=10, random_state=0),
    "svc": make_pipeline(StandardScaler(), SVC()),
    "calibrated_svc": make_pipeline(StandardScaler(), CalibratedClassifierCV(SVC(), ensemble=False)),
    "knn": make_pipeline(StandardScaler(), KNeighborsClassifier()),
    "another_estimator": GaussianNB(),
}
REGRESSORS = {
    "ridge": make_pipeline(StandardScaler(), Ridge()),
    "random_forest": RandomForestRegressor(10, random_state=0),
    "hist_gradient_boosting": HistGradientBoostingRegressor(max_iter=10),
    "svr": make_pipeline(StandardScaler(), TransformedTargetRegressor(SVR(), transformer=StandardScaler())),
}


def version_of(estimator: BaseEstimator, table: pd.DataFrame, classes: int = 0) -> LoadedModel:
    kinds = {"f": "double", "i": "long", "b": "boolean", "O": "string"}
    columns = tuple(
        Column(str(name), kinds[column.dtype.kind], column.dtype.kind == "i")
        for name, column in table.items()
    )
    names = tuple(f"class {code}" for code in range(classes)) or None
    return LoadedModel(ModelInfo("model", 1, None, None, None, names, columns), estimator)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_an_onnx_classifier_predicts_the_same_labels_at_the_boundaries(name: str) -> None:
    table, labels = load_iris(return_X_y=True, as_frame=True)
    check = convert_and_check(version_of(CLASSIFIERS[name].fit(table, labels), table, 3), table)[1]
    assert (check.holdout_rows, check.boundary_rows, check.differing) == (150, 800, 0)
    assert check.gap < 1e-9


@pytest.mark.slow
def test_an_onnx_classifier_of_two_classes_predicts_the_same_labels() -> None:
    table, labels = load_breast_cancer(return_X_y=True, as_frame=True)
    estimators = {
        name: CLASSIFIERS[name] for name in ("logistic_regression", "random_forest", "calibrated_svc")
    }
    threshold = FixedThresholdClassifier(estimators["logistic_regression"], threshold=0.2)
    for estimator in (*estimators.values(), threshold):
        check = convert_and_check(version_of(estimator.fit(table, labels), table, 2), table)[1]
        assert (check.boundary_rows, check.differing) == (800, 0)


@pytest.mark.parametrize("name", REGRESSORS)
def test_an_onnx_regressor_predicts_the_same_numbers(name: str) -> None:
    table, numbers = load_diabetes(return_X_y=True, as_frame=True)
    check = convert_and_check(version_of(REGRESSORS[name].fit(table, numbers), table), table)[1]
    assert (check.fault, check.boundary_rows) == (None, 0)
    assert check.gap < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("library", ["xgboost", "lightgbm"])
def test_an_onnx_file_of_a_boosting_library_predicts_the_same_labels(library: str) -> None:
    module = pytest.importorskip(library)
    arguments = {"xgboost": {"n_jobs": 1}, "lightgbm": {"n_jobs": 1, "verbose": -1}}[library]
    kind = {"xgboost": "XGBClassifier", "lightgbm": "LGBMClassifier"}[library]
    for load, classes in ((load_iris, 3), (load_breast_cancer, 2)):
        values, labels = load(return_X_y=True)
        table = pd.DataFrame(values, columns=[f"c{place}" for place in range(values.shape[1])])
        model = make_pipeline(
            ColumnTransformer([("numbers", "passthrough", list(table))]),
            getattr(module, kind)(n_estimators=10, **arguments),
        )
        table.iloc[::7, 0] = np.nan
        check = convert_and_check(version_of(model.fit(table, labels), table, classes), table)[1]
        assert (check.fault, check.boundary_rows) == (None, 800)


def animals() -> tuple[pd.DataFrame, np.ndarray]:
    """Return rows with numbers, text and booleans, all with missing values, and their labels."""
    rng = np.random.default_rng(0)
    rows = 300
    table = pd.DataFrame(
        {
            "weight": rng.normal(10, 4, rows),
            "colour": rng.choice(["grey", "brün", "off white"], rows).astype(object),
            "owner": np.array([f"owner {n}" for n in rng.integers(0, 40, rows)], dtype=object),
            "tame": (rng.random(rows) < 0.5).astype(object),
        }
    )
    labels = (table["weight"] > 10).astype(int) + (table["colour"] == "grey")
    for name, value in (("weight", np.nan), ("colour", np.nan), ("owner", np.nan), ("tame", None)):
        table.loc[rng.random(rows) < 0.1, name] = value
    return table, labels.to_numpy()


def prepared(estimator: BaseEstimator) -> BaseEstimator:
    fills = [
        SimpleImputer(missing_values=missing, strategy="constant", fill_value="none")
        for missing in (np.nan, None)
    ]
    one_hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    parts = [
        ("numbers", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), ["weight"]),
        ("texts", make_pipeline(*fills, one_hot), ["colour"]),
        ("codes", make_pipeline(*fills, TargetEncoder()), ["owner"]),
        ("booleans", one_hot, ["tame"]),
    ]
    return make_pipeline(ColumnTransformer(parts), estimator)


def animals_model(estimator: BaseEstimator) -> tuple[LoadedModel, pd.DataFrame]:
    table, labels = animals()
    model = prepared(estimator).fit(table, labels)
    version = version_of(model, table.astype({"tame": object}), 3)
    columns = tuple(
        Column(column.name, "boolean" if column.name == "tame" else column.type, False)
        for column in version.info.signature or ()
    )
    info = ModelInfo("animals", 1, None, None, None, version.info.target_names, columns)
    return LoadedModel(info, model), table


@pytest.mark.parametrize("name", ["logistic_regression", "random_forest", "calibrated_svc"])
def test_an_onnx_file_of_a_table_with_text_and_missing_values_predicts_the_same(name: str) -> None:
    version, table = animals_model(CLASSIFIERS[name])
    content, check = convert_and_check(version, table)
    assert (check.holdout_rows, check.differing) == (300, 0)
    assert check.boundary_rows > 100
    inputs = {each.name: each.type for each in open_session(content).get_inputs()}
    assert inputs == {
        "weight": "tensor(double)",
        "colour": "tensor(string)",
        "owner": "tensor(string)",
        "tame": "tensor(double)",
    }


def test_an_onnx_file_takes_unknown_text_and_an_empty_text_as_missing() -> None:
    version, table = animals_model(CLASSIFIERS["logistic_regression"])
    session = open_session(to_onnx(version).SerializeToString())
    rows = table.head(4).assign(colour=["violet", "", None, "grey"], owner="nobody", weight=10.0, tame=True)
    missing = rows.assign(colour=[text or None for text in rows["colour"]])
    made = run(session, version, rows)
    np.testing.assert_allclose(made["probabilities"], version.predict_proba(missing), rtol=1e-9)
    assert made["class_name"].tolist() == version.predict_names(missing).tolist()


def test_a_text_category_that_is_empty_is_not_exported() -> None:
    table, labels = animals()
    table["colour"] = table["colour"].where(table["colour"].isna() | (table["colour"] != "grey"), "")
    version, _ = animals_model(CLASSIFIERS["logistic_regression"])
    version.estimator.fit(table, labels)
    with pytest.raises(UnsupportedOperation, match="the category '', which the ONNX file reads as a missing"):
        to_onnx(version)


def test_a_column_of_dates_is_not_exported() -> None:
    table = pd.DataFrame({"day": ["2026-01-31", "2026-02-01"] * 10})
    dates = FunctionTransformer(date_parts, kw_args={"parts": [["month"]]})
    model = make_pipeline(ColumnTransformer([("dates", dates, ["day"])]), LogisticRegression())
    version = version_of(model.fit(table, [0, 1] * 10), table.astype(object), 2)
    with pytest.raises(UnsupportedOperation, match=r"cannot be exported to ONNX: .* dates"):
        to_onnx(version)


def test_another_estimator_without_a_conversion_is_not_exported() -> None:
    table, labels = load_iris(return_X_y=True, as_frame=True)
    model = make_pipeline(StandardScaler(), SVC(kernel="poly")).fit(table, labels)
    with pytest.raises(UnsupportedOperation, match="the SVC has the kernel 'poly', not rbf or linear"):
        to_onnx(version_of(model, table, 3))


def test_the_check_finds_labels_that_differ_between_a_model_and_a_file() -> None:
    table, labels = load_iris(return_X_y=True, as_frame=True)
    one = version_of(LogisticRegression(C=1.0, max_iter=500).fit(table, labels), table, 3)
    other = version_of(LogisticRegression(C=1.01, max_iter=500).fit(table, labels), table, 3)
    check = check_onnx(one, to_onnx(other).SerializeToString(), table)
    assert check.differing > 100
    assert check.fault is not None
    assert check.fault.startswith(f"{check.differing} of 950 rows get another prediction from the ONNX file")
