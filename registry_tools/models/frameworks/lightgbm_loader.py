"""Load LightGBM's text files of boosters, and its estimators in the skops format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from registry_tools.models.frameworks import skops_loader
from registry_tools.models.frameworks.class_scores import SIGMOID, SOFTMAX, model_of_scores
from registry_tools.models.frameworks.native_format import (
    FormatRunsCode,
    ModelFile,
    as_value_errors,
    check_beginning,
    checked_file,
    import_package,
)

_BOOSTER = "lightgbm.basic.Booster"
_LAST_STEPS = {"multiclass": SOFTMAX, "binary": SIGMOID}


def file_of(flavor: Mapping[str, Any], generic: Mapping[str, Any], folder: Path) -> str:
    """Return the file of the model, after checking the flavor.

    Raises
    ------
    FormatRunsCode
        If it is an estimator that was pickled.
    """
    if flavor.get("model_class", _BOOSTER) == _BOOSTER:
        return checked_file("lightgbm", flavor, generic, (".lgb", ".txt"))
    written = flavor.get("serialization_format", "cloudpickle")
    if written != "skops":
        raise FormatRunsCode(f"{flavor['model_class']} saved as {written}")
    return checked_file("lightgbm", flavor, generic, (".skops",))


def load(model: ModelFile) -> Any:
    """Return the estimator of the file, or a model of the scores of its booster."""
    if model.path.suffix == ".skops":
        return skops_loader.load(model)
    check_beginning(model.path, (b"tree\n", b"tree\r\n"), "LightGBM's text")
    lightgbm = import_package("lightgbm")

    def outputs(rows: Any) -> Any:
        with as_value_errors(lightgbm.basic.LightGBMError):
            return booster.predict(rows)

    with as_value_errors(lightgbm.basic.LightGBMError):
        booster = lightgbm.Booster(model_file=str(model.path))
    objective, *_ = str(booster.dump_model(num_iteration=1).get("objective", "")).split() or [""]
    return model_of_scores(outputs, model.class_names, _LAST_STEPS.get(objective))
