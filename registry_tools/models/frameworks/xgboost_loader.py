"""Load XGBoost's own files, which hold numbers and text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from registry_tools.models.frameworks.class_scores import SIGMOID, SOFTMAX, model_of_scores
from registry_tools.models.frameworks.native_format import (
    ModelFile,
    check_beginning,
    checked_file,
    import_package,
)

_BOOSTER = "xgboost.core.Booster"
_ESTIMATORS = ("XGBClassifier", "XGBRanker", "XGBRegressor", "XGBRFClassifier", "XGBRFRegressor")
_LAST_STEPS = {"multi:softprob": SOFTMAX, "binary:logistic": SIGMOID}


def file_of(flavor: Mapping[str, Any], generic: Mapping[str, Any], folder: Path) -> str:
    """Return the file of the model, after checking the flavor."""
    classes = {_BOOSTER, *(f"xgboost.sklearn.{name}" for name in _ESTIMATORS)}
    return checked_file("xgboost", flavor, generic, (".xgb", ".json", ".ubj"), classes)


def load(model: ModelFile) -> Any:
    """Return the estimator of the file, or a model of the scores of its booster."""
    check_beginning(model.path, (b"{",), "XGBoost's JSON or UBJSON")
    xgboost = import_package("xgboost")
    class_name = str(model.flavor.get("model_class", _BOOSTER))
    if class_name != _BOOSTER:
        estimator = getattr(xgboost, class_name.rpartition(".")[2])()
        estimator.load_model(model.path)
        return estimator
    booster = xgboost.Booster(model_file=str(model.path))
    objective = json.loads(booster.save_config())["learner"]["objective"]["name"]
    return model_of_scores(
        lambda rows: booster.predict(xgboost.DMatrix(rows)), model.class_names, _LAST_STEPS.get(objective)
    )
