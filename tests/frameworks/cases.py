"""One small model of each framework, logged as MLflow's documents show, for the tests of the loaders."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import infer_signature
from sklearn.datasets import load_iris

_IRIS = load_iris(as_frame=True)
NAMES = [str(name) for name in _IRIS.target_names]
FEATURES, LABELS = _IRIS.data, _IRIS.target
TRAIN_X, TRAIN_Y = FEATURES[::2], LABELS[::2]
HELD_OUT = FEATURES[1::2].assign(species=LABELS[1::2])
MATRIX = FEATURES.to_numpy("float32")


@dataclass(frozen=True)
class Framework:
    """A framework, and how to log a model of it."""

    title: str
    package: str  # tests are skipped where it is not installed
    log: Callable[[dict[str, Any]], Any]  # logs a model with the given arguments of `log_model`
    tensor: bool = False  # its signature is a tensor, not named columns


def log_version(framework: Framework, name: str) -> str:
    """Register a version of a small classifier of Iris, and return its reference."""
    rows = MATRIX if framework.tensor else FEATURES
    arguments = {
        "name": "model",
        "registered_model_name": name,
        "signature": infer_signature(rows, LABELS.to_numpy()),
        "metadata": {"target_names": NAMES},
        "pip_requirements": [framework.package],
    }
    with mlflow.start_run(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the frameworks and of MLflow's use of them
        return f"{name}/{framework.log(arguments).registered_model_version}"


def needs(package: str) -> pytest.MarkDecorator:
    """Skip a test where a package is not installed; only PyTorch may be missing."""
    missing = package == "torch" and importlib.util.find_spec("torch") is None
    return pytest.mark.skipif(missing, reason="PyTorch is not installed: pip install torch")


def scikit_learn(arguments: dict[str, Any]) -> Any:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=500).fit(TRAIN_X, TRAIN_Y)
    return mlflow.sklearn.log_model(model, **arguments)


def xgboost_estimator(arguments: dict[str, Any]) -> Any:
    from xgboost import XGBClassifier

    return mlflow.xgboost.log_model(XGBClassifier(n_estimators=20).fit(TRAIN_X, TRAIN_Y), **arguments)


def xgboost_booster(arguments: dict[str, Any]) -> Any:
    import xgboost

    rows = xgboost.DMatrix(TRAIN_X, TRAIN_Y)
    booster = xgboost.train({"objective": "multi:softprob", "num_class": 3}, rows, num_boost_round=20)
    return mlflow.xgboost.log_model(booster, **arguments)


def lightgbm_estimator(arguments: dict[str, Any]) -> Any:
    from lightgbm import LGBMClassifier

    model = LGBMClassifier(n_estimators=20, min_child_samples=5, verbose=-1).fit(TRAIN_X, TRAIN_Y)
    return mlflow.lightgbm.log_model(model, **arguments)


def lightgbm_booster(arguments: dict[str, Any]) -> Any:
    import lightgbm

    settings = {"objective": "multiclass", "num_class": 3, "min_data_in_leaf": 5, "verbose": -1}
    booster = lightgbm.train(settings, lightgbm.Dataset(TRAIN_X, TRAIN_Y), num_boost_round=20)
    return mlflow.lightgbm.log_model(booster, **arguments)


def catboost(arguments: dict[str, Any]) -> Any:
    from catboost import CatBoostClassifier

    model = CatBoostClassifier(iterations=50, verbose=0, allow_writing_files=False)
    return mlflow.catboost.log_model(model.fit(TRAIN_X, TRAIN_Y), **arguments)


def onnx(arguments: dict[str, Any]) -> Any:
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=500).fit(TRAIN_X.to_numpy(), TRAIN_Y)
    graph = to_onnx(model, TRAIN_X.to_numpy()[:1], options={"zipmap": False})
    return mlflow.onnx.log_model(graph, **arguments)


def keras(arguments: dict[str, Any]) -> Any:
    from keras import Input, Sequential, layers, optimizers, utils

    utils.set_random_seed(0)  # or one version could be so much worse that its promotion is refused
    model = Sequential([Input((4,)), layers.Dense(16, "relu"), layers.Dense(3, "softmax")])
    model.compile(optimizers.Adam(0.02), "sparse_categorical_crossentropy")
    model.fit(MATRIX[::2], TRAIN_Y.to_numpy(), epochs=40, batch_size=25, verbose=0)
    return mlflow.keras.log_model(model, **arguments)


def pytorch(arguments: dict[str, Any]) -> Any:
    import torch

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
    rows, labels = torch.from_numpy(MATRIX[::2]), torch.from_numpy(TRAIN_Y.to_numpy())
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(150):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(rows), labels).backward()
        optimizer.step()
    return mlflow.pytorch.log_model(model, input_example=MATRIX[:2], **arguments)


def statsmodels(arguments: dict[str, Any]) -> Any:
    import statsmodels.api as sm

    arguments = {**arguments, "metadata": None}  # it predicts a number
    return mlflow.statsmodels.log_model(sm.OLS(TRAIN_Y, TRAIN_X).fit(), **arguments)


def python_function(arguments: dict[str, Any]) -> Any:
    class LongPetals(mlflow.pyfunc.PythonModel):  # local, so that MLflow stores its code with the model
        """Predicts a class from the length of the petal."""

        def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
            return np.digitize(model_input["petal length (cm)"], [2.5, 4.8])

    return mlflow.pyfunc.log_model(python_model=LongPetals(), **arguments)


FRAMEWORKS = (
    Framework("scikit-learn", "scikit-learn", scikit_learn),
    Framework("XGBoost: estimator", "xgboost", xgboost_estimator),
    Framework("XGBoost: `Booster`", "xgboost", xgboost_booster),
    Framework("LightGBM: estimator", "lightgbm", lightgbm_estimator),
    Framework("LightGBM: `Booster`", "lightgbm", lightgbm_booster),
    Framework("CatBoost", "catboost", catboost),
    Framework("ONNX", "onnx", onnx),
    Framework("Keras", "keras", keras, tensor=True),
    Framework("PyTorch, `pt2`", "torch", pytorch, tensor=True),
    Framework("statsmodels", "statsmodels", statsmodels),
    Framework("Python function", "mlflow", python_function),
)
