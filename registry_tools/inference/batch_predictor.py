"""The predictions of one version for batches of rows, as columns."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import sklearn

from registry_tools import errors
from registry_tools.data.arrow_coercion import to_frame
from registry_tools.data.coerced_batch import CoercedBatch
from registry_tools.data.prediction_shape import check_one_output, check_predictions
from registry_tools.errors import InputError, RegistryToolsError, UnsupportedOperation, VerificationError
from registry_tools.inference import model_loader
from registry_tools.inference.model_artifact import ModelArtifact
from registry_tools.inference.predictor import Predictor
from registry_tools.models.trust_policy import TrustPolicy

# A model that refuses more rows of a batch is assumed to refuse every row, and the job fails.
_MOST_REFUSED = 1000
_NAME = pa.dictionary(pa.int32(), pa.string())


@dataclass(frozen=True)
class BatchPredictor:
    """A version that predicts batches of rows."""

    predictor: Predictor
    proba: bool

    @functools.cached_property
    def probability_columns(self) -> list[str]:
        """The names of the columns of probabilities, also of a class that the model lacks.

        Raises
        ------
        UnsupportedOperation
            If there are to be some, and the model gives none, or does not name them.
        """
        if not self.proba:
            return []
        artifact, names = self.predictor.artifact, self.predictor.model.class_names
        if not hasattr(self.predictor.estimator, "predict_proba"):
            kind = type(self.predictor.estimator).__name__
            raise UnsupportedOperation(f"{artifact} ({kind}) gives no probabilities")
        if not names or len(set(names)) < len(names):
            raise UnsupportedOperation(
                f"{artifact} does not name its classes, each by a name of its own: leave out --proba"
            )
        names = (*(self.predictor.info.target_names or ()), *names)
        return [f"probability_{name}" for name in dict.fromkeys(names)]

    @functools.cached_property
    def schema(self) -> pa.Schema:
        """The columns of predictions, with the types that show before the first prediction."""
        example = self.predictor.example_predictions.get("predict")
        classes = getattr(self.predictor.model.estimator, "classes_", np.empty(0))
        columns = {"prediction": pa.array(example or classes).type, "prediction_name": _NAME}
        columns |= {"model_version": pa.int32(), **dict.fromkeys(self.probability_columns, pa.float64())}
        return pa.schema(columns)

    def predict(self, coerced: CoercedBatch) -> tuple[pa.RecordBatch, dict[int, str]]:
        """Return the columns of predictions, and which rows the model refuses and why.

        Raises
        ------
        InputError
            If the model refuses every row.
        RegistryToolsError
            If it fails otherwise.
        """
        refused: dict[int, str] = {}
        parts = self._predict_or_bisect(coerced, refused)
        if not parts:
            return pa.RecordBatch.from_pylist([], self.schema), refused
        predictions, *probabilities = [np.concatenate(each) for each in zip(*parts, strict=True)]
        predicted = pa.array(check_one_output(predictions))
        columns = {
            "prediction": predicted,
            "prediction_name": self._names_of(predicted),
            "model_version": pa.repeat(
                pa.scalar(self.predictor.artifact.version, pa.int32()), len(predicted)
            ),
        }
        for values in probabilities:
            # Zero for a class that the model was trained without.
            columns |= dict.fromkeys(self.probability_columns, pa.array(np.zeros(len(predicted))))
            for name, column in zip(self.predictor.model.class_names, values.T, strict=True):
                columns[f"probability_{name}"] = pa.array(column, pa.float64())
        return pa.RecordBatch.from_pydict(columns), refused

    def _predict_or_bisect(
        self, coerced: CoercedBatch, refused: dict[int, str], first: int = 0
    ) -> list[list[npt.NDArray[Any]]]:
        """Predict rows, or, where the model refuses them, halve them until it is known which it refuses."""
        if not coerced.rows:
            return []
        try:
            return [self._predict_rows(coerced)]
        except InputError as error:
            if len(refused) >= _MOST_REFUSED:
                raise
            if coerced.rows == 1:
                refused[first] = str(error)
                return []
        middle = coerced.rows // 2
        return [
            *self._predict_or_bisect(coerced.slice(0, middle), refused, first),
            *self._predict_or_bisect(coerced.slice(middle, coerced.rows), refused, first + middle),
        ]

    def _predict_rows(self, coerced: CoercedBatch) -> list[npt.NDArray[Any]]:
        """Return the predictions, and the probabilities if they are wanted."""
        predictor = self.predictor
        columns = predictor.info.signature  # None for a tensor, whose rows are an array too
        methods = ["predict", "predict_proba"] if self.proba else ["predict"]
        takes_matrix = columns is None or (predictor.numeric_schema is not None and not predictor.needs_frame)
        try:
            # The coercion found values that are not finite; missing ones are for the model to judge.
            with sklearn.config_context(assume_finite=takes_matrix, skip_parameter_validation=True):
                if columns is None or takes_matrix:
                    names = coerced.arrays if columns is None else [column.name for column in columns]
                    matrix = np.array([coerced.arrays[name] for name in names]).T
                    return [np.asarray(predictor.predict_array(matrix, method)) for method in methods]
                frame = to_frame(coerced, columns)
                found = [getattr(predictor.estimator, method)(frame) for method in methods]
            return [check_predictions(each, len(frame), m) for each, m in zip(found, methods, strict=True)]
        except RegistryToolsError:
            raise
        except predictor.model.input_errors as error:
            raise InputError(f"the model cannot take it: {errors.first_line(error)}") from error
        except Exception as error:
            raise RegistryToolsError(errors.error_summary(error, 300)) from error

    def _names_of(self, predicted: pa.Array) -> pa.Array:
        """Return the names of predicted classes; null where a version has none.

        Raises
        ------
        VerificationError
            If a code has no name.
        """
        names = self.predictor.info.target_names
        if names is None:
            is_text = pa.types.is_string(predicted.type)
            return predicted.dictionary_encode() if is_text else pa.nulls(len(predicted), _NAME)
        try:
            return pa.DictionaryArray.from_arrays(predicted.cast(pa.int32()), pa.array(names, pa.string()))
        except pa.ArrowException as error:
            reason = errors.first_line(error)
            raise VerificationError(
                f"{self.predictor.artifact} predicts a class that has no name: {reason}"
            ) from error


def load(artifact: ModelArtifact, trust_policy: TrustPolicy, proba: bool) -> BatchPredictor:
    """Load a version whose files were verified.

    Raises
    ------
    VerificationError
        If it holds untrusted types, or does not reproduce its recorded predictions.
    """
    return BatchPredictor(model_loader.load(artifact, trust_policy), proba)
