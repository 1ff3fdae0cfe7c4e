"""A version loads if it answers its example; estimators that take a matrix do not warn of missing names.

A warning is an error in tests: what scikit-learn would say fails them.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import infer_signature
from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_iris
from sklearn.ensemble import (
    BaggingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from registry_tools.errors import VerificationError
from registry_tools.inference.model_artifact import ModelArtifact
from registry_tools.inference.model_loader import load, without_feature_names
from registry_tools.inference.predictor import Predictor
from registry_tools.models.trust_policy import TrustPolicy
from tests.support.python_models import column
from tests.support.side_by_side import save_sklearn

SCALED = Pipeline([("scale", StandardScaler()), ("model", LogisticRegression())])
PARTS = [("near", KNeighborsClassifier()), ("line", SCALED)]


@pytest.mark.parametrize(
    "estimator",
    [
        SCALED,
        Pipeline([("model", SVC())]),
        CalibratedClassifierCV(SVC(), ensemble=False, cv=2),
        Pipeline([("model", CalibratedClassifierCV(SCALED, cv=2))]),
        VotingClassifier(PARTS),
        StackingClassifier(PARTS, cv=2),
        BaggingClassifier(SCALED, n_estimators=2, random_state=0),
        RandomForestClassifier(5, random_state=0),
        HistGradientBoostingClassifier(max_iter=3),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_a_matrix_gets_the_predictions_of_the_table_and_the_estimator_is_unchanged(
    estimator: BaseEstimator,
) -> None:
    features, labels = load_iris(return_X_y=True, as_frame=True)
    estimator.fit(features, labels)
    wanted = estimator.predict(features)
    copied = without_feature_names(estimator)
    np.testing.assert_array_equal(copied.predict(features.to_numpy()), wanted)
    np.testing.assert_array_equal(estimator.predict(features), wanted)
    assert list(estimator.feature_names_in_) == list(features)


TABLE = pd.DataFrame({"a": np.arange(9.0), "b": np.arange(9.0)})


def load_saved(folder: Path) -> Predictor:
    return load(ModelArtifact(str(folder), "rows", 1, None, None, None), TrustPolicy())


@pytest.mark.parametrize("example", [{"inputs": [{"a": 1}]}, {"dataframe_split": {"data": [[1, 2]]}}, [1]])
def test_a_version_that_cannot_answer_its_own_example_is_refused(example: Any, tmp_path: Path) -> None:
    save_sklearn(LinearRegression().fit(TABLE, TABLE["a"]), tmp_path / "model", TABLE)
    (tmp_path / "model" / "serving_input_example.json").write_text(json.dumps(example))
    with pytest.raises(VerificationError, match="fails on its own example"):
        load_saved(tmp_path)


def test_a_version_whose_example_only_mlflow_decodes_answers_it(tmp_path: Path) -> None:
    fitted = LinearRegression().fit(TABLE, TABLE["a"])
    save_sklearn(fitted, tmp_path / "model", TABLE)
    example = {"inputs": {"a": [1.0, 2.0], "b": [1.0, 2.0]}}
    (tmp_path / "model" / "serving_input_example.json").write_text(json.dumps(example))
    predictor = load_saved(tmp_path)
    assert predictor.example == example
    assert predictor.example_predictions["predict"] == pytest.approx([1.0, 2.0])


@pytest.mark.parametrize(
    ("estimator", "labels", "code"),
    [
        (LogisticRegression(), [0, 0, 0, 0, 0, 0, 0, 0, 7], "7"),
        (LogisticRegression(), [-1, -1, -1, -1, 1, 1, 1, 1, 1], "-1"),
        (LogisticRegression(), list("nnnnyyyyy"), "'n'"),
        (LinearRegression(), [0, 0, 0, 0, 1, 1, 1, 1, 1], r"0\.\d+"),
        (LinearRegression(), np.eye(9)[:, :2], r"\[.*\]"),
    ],
    ids=["too large", "negative", "text", "not whole", "several outputs"],
)
def test_a_version_with_codes_that_have_no_class_name_is_refused(
    estimator: BaseEstimator, labels: Any, code: str, tmp_path: Path
) -> None:
    fitted = estimator.fit(TABLE, labels)
    save_sklearn(fitted, tmp_path / "model", TABLE, metadata={"target_names": ["no", "yes"]})
    with pytest.raises(VerificationError, match=f"predicts {code}, and its class names are those"):
        load_saved(tmp_path)


def test_a_whole_float_is_the_code_of_a_class(tmp_path: Path) -> None:
    fitted = LogisticRegression().fit(TABLE, (TABLE["a"] > 4).astype(float))
    save_sklearn(fitted, tmp_path / "model", TABLE, metadata={"target_names": ["no", "yes"]})
    assert load_saved(tmp_path).names_of([0.0, 1.0]) == ["no", "yes"]


@pytest.mark.parametrize("kind", ["series", "one", "two"])
def test_a_python_function_that_returns_columns_reproduces_its_recorded_predictions(
    kind: str, tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow wants an input example
        mlflow.pyfunc.save_model(
            tmp_path / "model",
            python_model=column(kind),
            signature=infer_signature(TABLE),
            metadata={"target_names": list("abcdefghi")} if kind != "two" else None,
            pip_requirements=[],
        )
    values: Any = [[1.0, 1.0], [2.0, 2.0]] if kind == "two" else [1.0, 2.0]
    rows = TABLE[1:3].to_dict("split", index=False)
    record = {"rows": rows, "predictions": values, "probabilities": None}
    (tmp_path / "recorded_predictions.json").write_text(json.dumps(record))
    allowed = TrustPolicy(allow_code=True)
    predictor = load(ModelArtifact(str(tmp_path), "rows", 1, None, None, None), allowed)
    if kind != "two":
        assert predictor.example_predictions == {"predict": values}
        assert predictor.mlflow_scoring.predict(TABLE[1:3], "predict") == values
    # The response is MLflow's.
    body = json.dumps({"dataframe_split": rows}).encode()
    reply = json.loads(predictor.mlflow_scoring.score_request(body, "application/json").reply)
    names = {"series": ["a"], "one": ["found"], "two": ["a", "b"]}[kind]
    assert reply == {"predictions": [dict.fromkeys(names, value) for value in (1.0, 2.0)]}
    record["predictions"][1] = record["predictions"][0]
    (tmp_path / "recorded_predictions.json").write_text(json.dumps(record))
    with pytest.raises(VerificationError, match="the prediction for row 1 of the input example differs"):
        load(ModelArtifact(str(tmp_path), "rows", 1, None, None, None), allowed)
