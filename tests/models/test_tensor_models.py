"""Versions whose signature is a tensor, from a plain `log_model`, in a real store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import ModelSignature, infer_signature
from mlflow.types.schema import Schema, TensorSpec
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from registry_tools import load_model
from registry_tools.cli.main import main
from registry_tools.errors import InputError, UnsupportedOperation
from tests.support.commands import error_of, run
from tests.support.constants import IRIS_ROW, LONG

_IRIS = load_iris()


def log_version(example: Any, signature: ModelSignature | None = None) -> str:
    """Register an estimator, trained on every other row of the example; return its reference."""
    estimator = LogisticRegression(max_iter=500).fit(example[::2], _IRIS.target[::2])
    with mlflow.start_run():
        made = mlflow.sklearn.log_model(
            estimator,
            name="model",
            registered_model_name="petals",
            signature=signature or infer_signature(example, _IRIS.target),
            serialization_format="skops",
            pip_requirements=["scikit-learn"],
        )
    return f"petals/{made.registered_model_version}"


@pytest.fixture
def rows_csv(store: str) -> Path:
    """The rows that no estimator was trained on, with a header that is none of the model's."""
    path = Path("rows.csv")
    pd.DataFrame(_IRIS.data[1::2], columns=list("abcd")).to_csv(path, index=False)
    return path


@pytest.fixture
def eval_csv(rows_csv: Path) -> Path:
    table = pd.read_csv(rows_csv)
    table.insert(1, "label", _IRIS.target[1::2])
    table.to_csv("eval.csv", index=False)
    return Path("eval.csv")


def test_a_tensor_model_predicts_arrays_and_frames_by_position(store: str) -> None:
    model = load_model(log_version(_IRIS.data))
    assert model.predict([IRIS_ROW]).tolist() == [1]
    assert model.predict(np.array([IRIS_ROW])).tolist() == [1]
    assert model.predict(pd.DataFrame([IRIS_ROW], columns=list("zyxw"))).tolist() == [1]
    assert model.predict_proba([IRIS_ROW]).shape == (1, 3)
    with pytest.raises(InputError, match="the rows have 2 columns, 4 are needed"):
        model.predict([[1.0, 2.0]])
    with pytest.raises(InputError, match="column '3', row 0: missing value"):
        model.predict([[1.0, 2.0, 3.0, None]])


def log_widest(signature: ModelSignature) -> None:
    """Register a model of Python code, which predicts the place of the largest value."""

    class Widest(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):
            assert isinstance(model_input, np.ndarray)
            return model_input.argmax(axis=1)

    with mlflow.start_run():
        mlflow.pyfunc.log_model(
            name="model",
            python_model=Widest(),
            registered_model_name="widest",
            signature=signature,
            pip_requirements=["numpy"],
        )


def test_a_tensor_model_that_mlflow_loads_predicts_arrays(store: str) -> None:
    with pytest.warns(UserWarning, match=r"type hints|input example"):
        log_widest(infer_signature(_IRIS.data.astype("float32"), _IRIS.target))
    assert load_model("widest/1", allow_code=True).predict([[1, 2, 9, 4]]).tolist() == [2]


def test_predict_takes_features_and_files_by_position(rows_csv: Path, eval_csv: Path, capsys: Any) -> None:
    ref = log_version(_IRIS.data)
    assert run(capsys, "predict", ref, "--features", "6.0,2.5,4.5,1.5")["prediction"] == 1
    predicted = [row["prediction"] for row in run(capsys, "predict", ref, "--input", str(rows_csv))]
    assert predicted == load_model(ref).predict(_IRIS.data[1::2]).tolist()
    Path("rows.json").write_text(json.dumps({"inputs": [IRIS_ROW]}))
    assert [row["prediction"] for row in run(capsys, "predict", ref, "--input", "rows.json")] == [1]
    assert main(["predict", ref, "--input", str(rows_csv), "--proba", "--output", "out.csv"]) == 0
    capsys.readouterr()
    written = pd.read_csv("out.csv")
    assert list(written)[:5] == ["a", "b", "c", "d", "prediction"]
    needed = "4 are needed: the model takes a tensor float64 (-1, 4)"
    assert f"the rows have 3 columns, {needed}" in error_of(capsys, "predict", ref, "--features", "1,2,3")
    assert f"the rows have 5 columns, {needed}" in error_of(capsys, "predict", ref, "--input", str(eval_csv))
    assert "'x' is not a number" in error_of(capsys, "predict", ref, "--features", "1,2,3,x")


@LONG
@pytest.mark.slow
def test_tensor_versions_are_verified_and_promoted(eval_csv: Path, capsys: Any) -> None:
    first, second = log_version(_IRIS.data.astype("float32")), log_version(_IRIS.data)
    assert run(capsys, "verify", first)["passed"]
    for ref, message in (
        (first, "tensor float32 (-1, 4), no champion to compare with"),
        (second, "tensor float64 (-1, 4), accepts the champion's requests"),
    ):
        argv = ["promote", ref, "--to", "production", "--eval-data", str(eval_csv), "--target", "label"]
        promoted = run(capsys, *argv)
        (gate,) = (g for g in promoted["verdict"]["gates"] if g["gate"] == "signature")
        assert (gate["passed"], gate["message"]) == (True, message)
    assert run(capsys, "show", "petals@production")["version"] == 2


@LONG
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["columns", "fewer columns", "narrower type"])
def test_a_version_that_does_not_take_the_same_tensor_is_refused(
    kind: str, eval_csv: Path, capsys: Any
) -> None:
    champion = log_version(_IRIS.data)
    candidate = log_version(
        {
            "columns": pd.DataFrame(_IRIS.data, columns=list("abcd")),
            "fewer columns": _IRIS.data[:, :3],
            "narrower type": _IRIS.data.astype("float32"),
        }[kind]
    )
    options = ["--to", "production", "--eval-data", str(eval_csv), "--target", "label"]
    assert main(["promote", champion, *options]) == 0
    assert main(["promote", candidate, *options]) == 3
    assert "clients send a tensor float64 (-1, 4)" in capsys.readouterr().err
    # And the other way round: clients of the candidate send what the champion does not take.
    if kind != "narrower type":
        assert (
            main(["promote", candidate, *options, "--force", "--reason", "x", "--expect-current", "1"]) == 0
        )
        assert main(["promote", champion, *options, "--dry-run"]) == 3
        assert "it takes a tensor float64 (-1, 4), clients send" in capsys.readouterr().err


def test_a_tensor_of_another_shape_is_refused_in_one_line(store: str, capsys: Any) -> None:
    signature = ModelSignature(Schema([TensorSpec(np.dtype("float64"), (-1, 2, 2))]))
    ref = log_version(_IRIS.data, signature)
    capsys.readouterr()
    reason = "the model takes a tensor float64 (-1, 2, 2): only one tensor of numbers, without a name"
    assert reason in error_of(capsys, "predict", ref, "--features", "6.0,2.5,4.5,1.5")
    with pytest.raises(UnsupportedOperation, match="only one tensor of numbers"):
        load_model(ref).predict(np.zeros((1, 2, 2)))
