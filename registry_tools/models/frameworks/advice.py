"""The advice in the refusal of a model that would run code: how to log a model of its flavor instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ALLOW = "if you trust its author, use --allow-code (allow_code=True)"

_SKOPS = "log it with serialization_format='skops'"
_ONNX = "convert it to ONNX and log it with mlflow.onnx.log_model"
_BY_FLAVOR = {
    "sklearn": _SKOPS,
    "lightgbm": _SKOPS,
    "xgboost": "log it with mlflow.xgboost.log_model and the default model_format",
    "catboost": "log it with mlflow.catboost.log_model and the default format",
    "onnx": "log it with mlflow.onnx.log_model and without these settings",
    "keras": "log it with mlflow.keras.log_model as a .keras file, without Lambda layers",
    "tensorflow": f"log a Keras model with mlflow.keras.log_model as a .keras file, or {_ONNX}",
    "pytorch": "log it with mlflow.pytorch.log_model(…, serialization_format='pt2', input_example=…)",
    **dict.fromkeys(("fastai", "paddle", "spark"), _ONNX),
}


def advice(flavors: Mapping[str, Mapping[str, Any]]) -> str:
    """Return how to log a model of these flavors so that it loads, as far as that is possible.

    Parameters
    ----------
    flavors
        The `flavors` of an `MLmodel` file whose model was refused.
    """
    others = sorted(set(flavors) - {"python_function"})
    if any(flavor.get("code") for flavor in flavors.values()):
        return f"log it without code_paths or, {ALLOW}"
    fix = _BY_FLAVOR.get(others[0]) if len(others) == 1 else None
    if fix is not None:
        return f"{fix} or, {ALLOW}"
    kind = others[0] if len(others) == 1 else "this kind"
    named = f"a model of {kind} has no format without code" if others else "a Python function is code"
    return f"{named}: {ALLOW}"
