"""Load CatBoost's own files, which hold numbers and text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from registry_tools.data.prediction_shape import flatten_one_output
from registry_tools.models.frameworks.native_format import (
    FormatRunsCode,
    ModelFile,
    as_value_errors,
    check_beginning,
    checked_file,
    import_package,
)

_ESTIMATORS = ("CatBoost", "CatBoostClassifier", "CatBoostRanker", "CatBoostRegressor")
_BEGINNINGS = {"cbm": b"CBM1", "json": b"{"}


def file_of(flavor: Mapping[str, Any], generic: Mapping[str, Any], folder: Path) -> str:
    """Return the file of the model, after checking the flavor.

    Raises
    ------
    FormatRunsCode
        If it has another class or format.
    """
    if flavor.get("model_type") not in _ESTIMATORS:
        raise FormatRunsCode(f"catboost with the class {flavor.get('model_type')}")
    if flavor.get("save_format") not in _BEGINNINGS:
        raise FormatRunsCode(f"catboost saved as {flavor.get('save_format')}")
    return checked_file("catboost", flavor, generic, (".cb",))


@dataclass(frozen=True)
class CatBoostModel:
    """A CatBoost model that predicts one value a row, where CatBoost itself returns lists of one class."""

    fitted: Any
    error: type[Exception]  # of the library

    def predict(self, rows: Any) -> npt.NDArray[Any]:
        """Return the predictions, shape (rows,) or (rows, outputs)."""
        with as_value_errors(self.error):
            return flatten_one_output(np.asarray(self.fitted.predict(rows)))


@dataclass(frozen=True)
class CatBoostClassifier(CatBoostModel):
    """A CatBoost model that has classes and probabilities."""

    @property
    def classes_(self) -> npt.NDArray[Any]:
        """The classes, in the order of the probabilities."""
        return np.asarray(self.fitted.classes_)

    def predict_proba(self, rows: Any) -> npt.NDArray[Any]:
        """Return the probability of each class, shape (rows, classes)."""
        with as_value_errors(self.error):
            return self.fitted.predict_proba(rows)


def load(model: ModelFile) -> CatBoostModel:
    """Return the model of the file."""
    written = str(model.flavor["save_format"])
    check_beginning(model.path, (_BEGINNINGS[written],), f"CatBoost's format {written}")
    catboost = import_package("catboost")
    name = str(model.flavor["model_type"])
    fitted = getattr(catboost, name)()
    with as_value_errors(catboost.CatBoostError):
        fitted.load_model(str(model.path), format=written)
    kind = CatBoostClassifier if name == "CatBoostClassifier" else CatBoostModel
    return kind(fitted, catboost.CatBoostError)
