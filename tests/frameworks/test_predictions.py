"""A loaded model predicts what its library predicts."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import infer_signature

from registry_tools import load_model
from registry_tools.errors import InputError, UnsupportedOperation
from tests.frameworks.cases import FEATURES, FRAMEWORKS, MATRIX, NAMES, Framework, log_version, needs

WITH_CLASSES = [each for each in FRAMEWORKS if each.title not in ("statsmodels", "Python function")]


@pytest.mark.parametrize(
    "framework", [pytest.param(each, id=each.title, marks=needs(each.package)) for each in WITH_CLASSES]
)
def test_a_version_with_class_names_predicts_classes_and_their_names(
    framework: Framework, store: str
) -> None:
    model = load_model(log_version(framework, "petals"))
    predicted = model.predict(MATRIX if framework.tensor else FEATURES)
    assert set(predicted.tolist()) == {0, 1, 2}
    assert model.predict_names(MATRIX[:1]).tolist() == [NAMES[predicted[0]]]
    assert list(model.class_names) == NAMES
    if "PyTorch" in framework.title:  # its scores are no probabilities
        with pytest.raises(UnsupportedOperation, match="gives no probabilities"):
            model.predict_proba(MATRIX)
        return
    probabilities = model.predict_proba(MATRIX)
    assert probabilities.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert probabilities.argmax(axis=1).tolist() == model.predict(MATRIX).tolist()


def log_onnx(model: Any, rows: Any, **options: Any) -> str:
    from skl2onnx import to_onnx

    with mlflow.start_run(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = mlflow.onnx.log_model(
            to_onnx(model, rows[:1], **options),
            name="model",
            registered_model_name="graph",
            signature=infer_signature(rows),
            pip_requirements=["onnx"],
        )
    return f"graph/{made.registered_model_version}"


def test_an_onnx_graph_with_text_labels_and_a_map_of_probabilities_predicts_them(store: str) -> None:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=500).fit(MATRIX, np.array(NAMES)[[0, 1, 2] * 50])
    loaded = load_model(log_onnx(model, MATRIX))
    assert loaded.predict(MATRIX).tolist() == model.predict(MATRIX).tolist()
    assert list(loaded.class_names) == model.classes_.tolist()
    assert loaded.predict_proba(MATRIX) == pytest.approx(model.predict_proba(MATRIX), abs=1e-5)


def test_an_onnx_graph_of_a_regressor_predicts_one_number_a_row(store: str) -> None:
    from sklearn.linear_model import LinearRegression

    rows = FEATURES.to_numpy()
    model = LinearRegression().fit(rows[:, :3], rows[:, 3])
    loaded = load_model(log_onnx(model, rows[:, :3]))
    assert loaded.predict(rows[:, :3]) == pytest.approx(model.predict(rows[:, :3]))


def test_an_onnx_graph_that_takes_columns_by_name_predicts_a_table(store: str) -> None:
    from skl2onnx import to_onnx
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline

    table = pd.DataFrame({"a": FEATURES.iloc[:, 0], "b": FEATURES.iloc[:, 1]})
    kept = make_column_transformer(("passthrough", ["a", "b"]))
    model = make_pipeline(kept, LinearRegression()).fit(table, FEATURES.iloc[:, 2])
    assert len(to_onnx(model, table[:1]).graph.input) == 2
    loaded = load_model(log_onnx(model, table))
    assert loaded.predict(table[["b", "a"]]) == pytest.approx(model.predict(table))


def test_a_binary_booster_predicts_both_classes_and_their_probabilities(store: str) -> None:
    import lightgbm

    settings = {"objective": "binary", "min_data_in_leaf": 5, "verbose": -1}
    labels = (FEATURES.iloc[:, 2] > 4.5).astype(int)
    booster = lightgbm.train(settings, lightgbm.Dataset(FEATURES, labels), num_boost_round=10)
    with mlflow.start_run(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.lightgbm.log_model(
            booster,
            name="model",
            registered_model_name="two",
            signature=infer_signature(FEATURES),
            metadata={"target_names": ["short", "long"]},
            pip_requirements=["lightgbm"],
        )
    model = load_model("two/1")
    assert model.predict(FEATURES).tolist() == (booster.predict(FEATURES) > 0.5).astype(int).tolist()
    assert model.predict_proba(FEATURES)[:, 1] == pytest.approx(booster.predict(FEATURES))


@needs("torch")
def test_a_pt2_graph_computes_what_pytorch_computes(store: str, tmp_path: Path) -> None:
    import torch
    from torch import nn

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Sequential(nn.Linear(4, 12), nn.BatchNorm1d(12), nn.GELU(), nn.Dropout(0.5))
            self.recurrent = nn.LSTM(3, 5, batch_first=True)
            self.last = nn.Linear(20, 2)

        def forward(self, rows: Any) -> Any:
            hidden, _ = self.recurrent(self.first(rows).reshape(rows.shape[0], 4, 3))
            weights = torch.softmax(hidden.mean(dim=2, keepdim=True), dim=1)
            return torch.sigmoid(self.last((hidden * weights).flatten(1)))

    torch.manual_seed(1)
    network = Network().eval()
    with mlflow.start_run(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.pytorch.log_model(
            network,
            name="model",
            registered_model_name="network",
            signature=infer_signature(MATRIX),
            input_example=MATRIX[:2],
            pip_requirements=["torch"],
        )
    with torch.no_grad():
        expected = network(torch.from_numpy(MATRIX)).numpy()
    assert load_model("network/1").predict(MATRIX) == pytest.approx(expected, abs=1e-6)


def test_rows_that_a_library_refuses_are_an_input_error(store: str) -> None:
    onnx = next(each for each in FRAMEWORKS if each.title == "ONNX")
    model = load_model(log_version(onnx, "petals"))
    with pytest.raises(InputError, match="3 values, 4 are needed"):
        model.predict(MATRIX[:, :3])
