"""A version that is served: rows in, answers out; no transport."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import sklearn

from registry_tools.errors import InputError, UnsupportedOperation, VerificationError
from registry_tools.inference.decoder import Matrix, NumericSchema
from registry_tools.inference.mlflow_scoring import MlflowScoring
from registry_tools.inference.model_artifact import ModelArtifact
from registry_tools.models.loaded_model import LoadedModel, ModelInfo

_log = logging.getLogger(__name__)

METHODS = ("predict", "predict_proba")


def skip_sklearn_validation() -> None:
    """Tell scikit-learn, in this thread, that rows and parameters were looked at already."""
    sklearn.set_config(assume_finite=True, skip_parameter_validation=True)


@dataclass(frozen=True, eq=False)
class Predictor:
    """One version of a model, ready to answer."""

    artifact: ModelArtifact
    model: LoadedModel
    numeric_schema: NumericSchema | None  # None if rows of numbers are not enough for it
    mlflow_scoring: MlflowScoring  # for every request that `inputs` does not read
    estimator: Any  # what answers rows of numbers
    needs_frame: bool = False  # it takes its columns by name
    inline_rows: int = 0  # as many rows are answered without keeping others waiting
    loaded_at: str = ""
    example: dict[str, Any] | None = None  # JSON of MLflow's protocol that it was tried with
    example_predictions: dict[str, list[Any]] = field(default_factory=dict)  # to it, by method

    @property
    def info(self) -> ModelInfo:
        """What the version says of itself."""
        return self.model.info

    @functools.cached_property
    def label(self) -> str:
        """The version as a label of metrics."""
        return str(self.artifact.version)

    @functools.cached_property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The version as headers of an answer."""
        found = [
            (b"x-model-name", _header(self.artifact.name)),
            (b"x-model-version", str(self.artifact.version).encode()),
        ]
        if self.artifact.stage is not None:
            found.append((b"x-model-stage", self.artifact.stage.encode()))
        return found

    def predict(self, rows: Matrix, method: str) -> list[Any]:
        """Answer rows of numbers, shape (rows, columns), with one value a row, or one list.

        scikit-learn is told elsewhere not to look for values that are not finite: that is done
        here, once, and leaves it to the model whether it can take them.

        Raises
        ------
        InputError
            If the model cannot take them; no value is named.
        UnsupportedOperation
            If the model has no such method.
        """
        predictions: list[Any] = self.predict_array(rows, method).tolist()
        return predictions

    def predict_array(self, rows: Matrix, method: str) -> Any:
        """Answer as `answer`, with an array."""
        function = self._function(method)
        taken = self._frame(rows) if self.needs_frame else rows
        try:
            if rows.dtype.kind == "f" and not np.isfinite(rows).all():
                with sklearn.config_context(assume_finite=False):
                    predictions = function(taken)
            else:
                predictions = function(taken)
        except Exception as error:
            # Whatever rows make a model raise is told as MLflow tells it: the rows do not fit.
            if not isinstance(error, self.model.input_errors):
                _log.warning("%s raised %s on a request", self.artifact, type(error).__name__)
            raise InputError(_refusal(rows, self.numeric_schema)) from error
        if len(predictions) != len(rows):
            raise VerificationError(
                f"{self.artifact} gave {len(predictions)} predictions for {len(rows)} rows"
            )
        return predictions

    def _function(self, method: str) -> Callable[[Any], Any]:
        function = getattr(self.estimator, method, None)
        if function is None:
            kind = type(self.estimator).__name__
            raise UnsupportedOperation(f"{self.artifact} ({kind}) has no {method}")
        return function

    def _frame(self, rows: Matrix) -> Any:
        from registry_tools.data.coercion import coerce

        return coerce(rows, self.info.signature)


def _header(text: str) -> bytes:
    return text.encode("ascii", "backslashreplace")


def _refusal(rows: Matrix, numeric_schema: NumericSchema | None) -> str:
    holes = np.argwhere(~np.isfinite(rows.astype(np.float64, copy=False)))
    if len(holes) and numeric_schema is not None:
        row, column = holes[0]
        return (
            f"column {numeric_schema.names[column]!r}, row {row}: a value that is missing or not "
            "finite, and this model was trained without any"
        )
    return "the model cannot take these rows"
