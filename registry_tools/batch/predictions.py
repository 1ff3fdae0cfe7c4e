"""The predictions of one version for a batch of rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import sklearn

from registry_tools import errors
from registry_tools.data.arrow_coercion import to_frame
from registry_tools.data.coerced_batch import CoercedBatch
from registry_tools.errors import InputError, RegistryToolsError, UnsupportedOperation, VerificationError
from registry_tools.inference.predictor import Predictor
from registry_tools.models.loaded_model import ModelInfo
from registry_tools.models.prediction_shape import check_one_output, check_predictions

# The limit of calls that search a batch for the rows that the model refuses. Beyond it, the model is
# assumed to refuse every row, and the job fails.
_MOST_CALLS = 4096
_MOST_UNNAMED = 1000  # whole numbers that are counted as if they were classes
BatchResult = tuple[pa.RecordBatch, dict[int, str]]  # predictions; which rows have none, and why
_NAME = pa.dictionary(pa.int32(), pa.string())


@dataclass(frozen=True)
class BatchPredictor:
    """A version that predicts batches of rows."""

    predictor: Predictor
    proba: bool

    def probability_columns(self) -> list[str]:
        """Return the names of the columns of probabilities, also of a class that the model lacks.

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

    def predict(self, coerced: CoercedBatch, malformed: Mapping[int, str]) -> BatchResult:
        """Return the columns of predictions, and which rows have none and why.

        Parameters
        ----------
        coerced
            The rows; those with a fault have no prediction.
        malformed
            The reasons why other rows have none.

        Raises
        ------
        InputError
            If the model refuses every row.
        RegistryToolsError
            If it fails otherwise.
        """
        bad = {**coerced.reasons, **malformed}
        good = np.ones(coerced.rows, bool)
        good[list(bad)] = False
        kept = np.flatnonzero(good)
        parts, refused = self._predict_or_bisect(coerced.keep_rows(good) if bad else coerced)
        bad |= {int(kept[row]): reason for row, reason in refused.items()}
        arrays = [np.concatenate(each) for each in zip(*parts, strict=True)]
        return self._columns(
            arrays or [np.empty(0), np.empty((0, len(self.predictor.model.class_names)))]
        ), bad

    def _columns(self, arrays: list[npt.NDArray[Any]]) -> pa.RecordBatch:
        """Return predictions, their names, and probabilities if they are wanted, as columns."""
        predicted = pa.array(check_one_output(arrays[0]))
        if not len(predicted):
            predicted = predicted.cast(prediction_type(self.predictor))
        version = pa.scalar(self.predictor.artifact.version, pa.int32())
        columns = {
            "prediction": predicted,
            "prediction_name": prediction_names(predicted, self.predictor.info),
            "model_version": pa.repeat(version, len(predicted)),
        }
        classes = self.predictor.model.class_names if self.proba else ()
        by_class = {name: arrays[1][:, place] for place, name in enumerate(classes)}
        nothing = np.zeros(len(predicted))  # of a class that the model was trained without
        for column in self.probability_columns():
            values = by_class.get(column.removeprefix("probability_"), nothing)
            columns[column] = pa.array(values, pa.float64())
        return pa.RecordBatch.from_pydict(columns)

    def _predict_or_bisect(
        self, coerced: CoercedBatch
    ) -> tuple[list[list[npt.NDArray[Any]]], dict[int, str]]:
        """Predict all rows, or, where the model refuses them, find out which it is."""
        refused: dict[int, str] = {}
        parts = []
        waiting = [(0, coerced.rows)] if coerced.rows else []
        calls = 0
        while waiting:
            begin, end = waiting.pop()
            arrays = {name: values[begin:end] for name, values in coerced.arrays.items()}
            calls += 1
            try:
                parts.append(self._predict_rows(CoercedBatch(end - begin, arrays)))
            except InputError as error:
                if calls > _MOST_CALLS:
                    raise
                if end - begin == 1:
                    refused[begin] = str(error)
                    continue
                middle = (begin + end) // 2
                waiting += [(middle, end), (begin, middle)]
        return parts, refused

    def _predict_rows(self, coerced: CoercedBatch) -> list[npt.NDArray[Any]]:
        """Return the predictions, and the probabilities if they are wanted."""
        predictor = self.predictor
        columns = predictor.info.signature or ()
        methods = ["predict", "predict_proba"] if self.proba else ["predict"]
        takes_matrix = predictor.numeric_schema is not None and not predictor.needs_frame
        try:
            # The coercion found values that are not finite; missing ones are for the model to judge.
            with sklearn.config_context(assume_finite=takes_matrix, skip_parameter_validation=True):
                if takes_matrix:
                    matrix = np.array([coerced.arrays[column.name] for column in columns]).T
                    return [np.asarray(predictor.predict_array(matrix, method)) for method in methods]
                frame = to_frame(coerced, columns)
                found = {method: getattr(predictor.estimator, method)(frame) for method in methods}
            return [check_predictions(each, len(frame), method) for method, each in found.items()]
        except RegistryToolsError:
            raise
        except predictor.model.input_errors as error:
            raise InputError(f"the model cannot take it: {errors.first_line(error)}") from error
        except Exception as error:
            raise RegistryToolsError(errors.error_summary(error, 300)) from error


def prediction_names(predicted: pa.Array, info: ModelInfo) -> pa.Array:
    """Return the names of predicted classes; null where a version has none.

    Raises
    ------
    VerificationError
        If a code has no name.
    """
    if info.target_names is None:
        if pa.types.is_string(predicted.type):
            return predicted.dictionary_encode()
        return pa.nulls(len(predicted), _NAME)
    try:
        return pa.DictionaryArray.from_arrays(
            predicted.cast(pa.int32()), pa.array(info.target_names, pa.string())
        )
    except pa.ArrowException as error:
        reason = errors.first_line(error)
        version = f"{info.name} version {info.version}"
        raise VerificationError(f"{version} predicts a class that has no name: {reason}") from error


def prediction_type(predictor: Predictor) -> pa.DataType:
    """Return the type of what a version predicts, as far as it shows before it predicts."""
    if predictor.example_predictions.get("predict"):
        return pa.array(predictor.example_predictions["predict"]).type
    classes = getattr(predictor.model.estimator, "classes_", None)
    return pa.array(classes).type if classes is not None else pa.float64()


def class_counts(predictions: pa.RecordBatch, has_classes: bool) -> dict[str, int]:
    """Return how many rows there are of each class; nothing where numbers are predicted.

    Parameters
    ----------
    predictions
        The columns of the predictions.
    has_classes
        Whether the model has classes. Whole numbers of another one, such as those of clusters, are
        counted if there are at most 1,000.
    """
    names, predicted = predictions.column("prediction_name"), predictions.column("prediction")
    if names.null_count < len(names):
        counts = np.bincount(names.indices).tolist()
        return {name: n for name, n in zip(names.dictionary.to_pylist(), counts, strict=False) if n}
    if not pa.types.is_integer(predicted.type) and not pa.types.is_boolean(predicted.type):
        return {}
    counts = pc.value_counts(predicted)
    if not has_classes and len(counts) > _MOST_UNNAMED:
        return {}
    return {str(pair["values"]): pair["counts"] for pair in counts.to_pylist()}
