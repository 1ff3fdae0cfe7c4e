"""A version ready to predict, without a transport."""

from __future__ import annotations

import functools
import json
import logging
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import sklearn

from registry_tools.data.coercion import coerce
from registry_tools.data.prediction_shape import check_predictions
from registry_tools.errors import InputError, UnsupportedOperation
from registry_tools.inference.decoder import Matrix, NumericSchema, decode_json
from registry_tools.inference.mlflow_scoring import JSON, MlflowScoring, encode_json
from registry_tools.inference.model_artifact import ModelArtifact
from registry_tools.models.loaded_model import LoadedModel, ModelInfo

_log = logging.getLogger(__name__)


def skip_sklearn_validation() -> None:
    """Tell scikit-learn, in this thread, that rows and parameters are checked already."""
    sklearn.set_config(assume_finite=True, skip_parameter_validation=True)


@dataclass(frozen=True, eq=False)
class Predictor:
    """One version of a model, ready to predict."""

    artifact: ModelArtifact
    model: LoadedModel
    numeric_schema: NumericSchema | None  # None if rows of numbers are not enough for it
    mlflow_scoring: MlflowScoring  # for every request that `decoder` does not parse
    estimator: Any  # predicts rows of numbers
    needs_frame: bool = False  # it takes its columns by name
    inline_rows: int = 0  # as many rows are predicted without keeping others waiting
    loaded_at: str = ""
    example: dict[str, Any] | None = None  # JSON of MLflow's protocol that it was checked with
    example_predictions: dict[str, list[Any]] = field(default_factory=dict)  # for it, by method

    @property
    def info(self) -> ModelInfo:
        """The metadata of the version."""
        return self.model.info

    @functools.cached_property
    def label(self) -> str:
        """The version as a label of metrics."""
        return str(self.artifact.version)

    @functools.cached_property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The version as headers of a response."""
        found = [
            (b"x-model-name", self.artifact.name.encode("ascii", "backslashreplace")),
            (b"x-model-version", str(self.artifact.version).encode()),
        ]
        if self.artifact.stage is not None:
            found.append((b"x-model-stage", self.artifact.stage.encode()))
        return found

    def predict(self, rows: Matrix, method: str) -> list[Any]:
        """Predict rows of numbers, shape (rows, columns): one value a row, or one list.

        scikit-learn does not check for values that are not finite (`skip_sklearn_validation`): that
        is done here, once, and leaves it to the model whether it can take them.

        Raises
        ------
        InputError
            If the model cannot take them; no value is named.
        UnsupportedOperation
            If the model has no such method.
        VerificationError
            If it returns more or fewer predictions than there are rows.
        """
        predictions: list[Any] = self.predict_array(rows, method).tolist()
        return predictions

    def predict_array(self, rows: Matrix, method: str) -> Any:
        """Predict as `predict`, and return an array."""
        function = getattr(self.estimator, method, None)
        if function is None:
            raise UnsupportedOperation(f"{self.artifact} ({type(self.estimator).__name__}) has no {method}")
        taken = coerce(rows, self.info.signature) if self.needs_frame else rows
        try:
            if rows.dtype.kind == "f" and not np.isfinite(rows).all():
                with sklearn.config_context(assume_finite=False):
                    predictions = function(taken)
            else:
                predictions = function(taken)
        except Exception as error:
            # As in MLflow, any error that rows cause means that the rows do not fit.
            if not isinstance(error, self.model.input_errors):
                _log.warning("%s raised %s on a request", self.artifact, type(error).__name__)
            raise InputError(_refusal(rows, self.numeric_schema)) from error
        return check_predictions(predictions, len(rows), method)

    def decode_json(self, body: bytes) -> tuple[Matrix | None, str]:
        """Decode a JSON body of MLflow's protocol, as `decoder.decode_json` does."""
        return decode_json(body, self.numeric_schema, self.mlflow_scoring.declared_params)

    def predict_json(self, body: bytes, method: str) -> Any:
        """Predict a JSON body of MLflow's protocol as `/invocations` does, and parse the response."""
        rows, _ = self.decode_json(body)
        if rows is None:
            return self.mlflow_scoring.score_request(body, JSON, method).predictions
        return json.loads(encode_json(self.predict(rows, method)))

    def names_of(self, predictions: list[Any]) -> list[str]:
        """Return the class names of predictions; 2.0 is the code of the class 2.

        Raises
        ------
        UnsupportedOperation
            If the version has no class names, or none for a prediction.
        """
        names = self.info.target_names
        if names is None:
            raise UnsupportedOperation(f"{self.artifact} has no class names: use /invocations")
        for code in predictions:
            if not isinstance(code, (int, float)) or code not in range(len(names)):
                raise UnsupportedOperation(
                    f"{self.artifact} predicts {code!r}, and its class names are those of the codes 0 to "
                    f"{len(names) - 1}: use /invocations, or register it with other target_names"
                )
        return [names[int(code)] for code in predictions]


def _refusal(rows: Matrix, numeric_schema: NumericSchema | None) -> str:
    missing = np.argwhere(~np.isfinite(rows.astype(np.float64, copy=False)))
    if len(missing) and numeric_schema is not None:
        row, column = missing[0]
        return (
            f"column {numeric_schema.names[column]!r}, row {row}: a value that is missing or not "
            "finite, and this model was trained without any"
        )
    return "the model cannot take these rows"
