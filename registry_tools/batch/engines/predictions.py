"""Checked rows in, answers out: what one version says of a batch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import sklearn

from registry_tools.batch.validation.checked_columns import Checked
from registry_tools.batch.validation.columns import check
from registry_tools.data.schema import Column
from registry_tools.errors import (
    InputError,
    RegistryToolsError,
    UnsupportedOperation,
    VerificationError,
)
from registry_tools.inference.predictor import Predictor
from registry_tools.models.formats import ModelInfo, first_line

# So many calls of the model find out which rows of a batch it refuses; more is no matter of rows.
_MOST_CALLS = 4096
_NAME = pa.dictionary(pa.int32(), pa.string())


@dataclass(frozen=True)
class Answerer:
    """A version that answers batches of rows."""

    predictor: Predictor
    proba: bool
    text: bool  # whether the rows are the text of a CSV

    def classes(self) -> list[str]:
        """Return the names that the columns of probabilities have.

        Raises
        ------
        UnsupportedOperation
            If there are to be some, and the model gives none, or does not name them.
        """
        if not self.proba:
            return []
        if not hasattr(self.predictor.estimator, "predict_proba"):
            kind = type(self.predictor.estimator).__name__
            raise UnsupportedOperation(f"{self.predictor.artifact} ({kind}) gives no probabilities")
        names = self.predictor.model.class_names
        if not names or len(set(names)) < len(names):
            raise UnsupportedOperation(
                f"{self.predictor.artifact} does not name its classes, each by a name of its own: "
                "leave out --proba"
            )
        return _probability_columns(self.predictor)

    def answer(self, rows: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[int, str]]:
        """Return the columns of the answer, and which rows have none and why.

        Raises
        ------
        InputError
            If the model refuses whatever it is asked.
        """
        columns = self.predictor.info.signature or ()
        checked = check(rows, columns, self.text)
        kept = np.flatnonzero(checked.good())
        bad = dict(checked.bad)
        checked = checked.without_bad()
        found: list[npt.NDArray[Any]] = []
        for function in self._functions():
            answers, refused = _some(function, checked)
            bad |= {int(kept[row]): reason for row, reason in refused.items()}
            if refused:
                good = np.ones(checked.rows, bool)
                good[list(refused)] = False
                checked = Checked(
                    int(good.sum()), {name: a[good] for name, a in checked.arrays.items()}
                )
                found = [before[good] for before in found]
                kept = kept[good]
            found.append(answers)
        return answer_columns(self.predictor, found), bad

    def _functions(self) -> list[Callable[[Checked], npt.NDArray[Any]]]:
        methods = ["predict", "predict_proba"] if self.proba else ["predict"]
        return [functools.partial(self._call, method) for method in methods]

    def _call(self, method: str, checked: Checked) -> npt.NDArray[Any]:
        predictor = self.predictor
        columns = predictor.info.signature or ()
        if predictor.numeric_schema is not None and not predictor.needs_frame:
            matrix = np.column_stack([checked.arrays[column.name] for column in columns])
            return np.asarray(predictor.predict_array(matrix, method))
        frame = coerced_frame(checked, columns)
        try:
            with sklearn.config_context(assume_finite=False):  # holes are the model's to judge
                answers = np.asarray(getattr(predictor.estimator, method)(frame))
        except predictor.model.refusals as error:
            raise InputError(f"the model cannot take it: {first_line(error)}") from error
        if len(answers) != len(frame):
            raise RegistryToolsError(
                f"{predictor.artifact} gave {len(answers)} answers to {len(frame)} rows"
            )
        return answers


def coerced_frame(checked: Checked, columns: Sequence[Column]) -> Any:
    """Return the frame that `frames.coerce` makes of the same rows."""
    import pandas as pd

    return pd.DataFrame(
        {c.name: pd.Series(checked.arrays[c.name], dtype=_dtype(checked, c)) for c in columns}
    )


def _dtype(checked: Checked, column: Column) -> Any:
    return checked.arrays[column.name].dtype  # or pandas would make objects its own text


def _some(
    function: Callable[[Checked], npt.NDArray[Any]], checked: Checked
) -> tuple[npt.NDArray[Any], dict[int, str]]:
    """Answer all rows, or, where the model refuses them, find out which it is."""
    if checked.rows == 0:
        return np.empty(0), {}
    refused: dict[int, str] = {}
    parts: list[npt.NDArray[Any]] = []
    waiting = [(0, checked.rows)]
    calls = 0
    while waiting:
        begin, end = waiting.pop()
        part = {name: values[begin:end] for name, values in checked.arrays.items()}
        calls += 1
        try:
            parts.append(function(Checked(end - begin, part)))
        except InputError as error:
            if calls > _MOST_CALLS:
                raise
            if end - begin == 1:
                refused[begin] = str(error)
                continue
            middle = (begin + end) // 2
            waiting += [(middle, end), (begin, middle)]
    return np.concatenate(parts) if parts else np.empty(0), refused


def answer_columns(predictor: Predictor, found: list[npt.NDArray[Any]]) -> pa.RecordBatch:
    """Return predictions, their names, and probabilities if there are any, as columns."""
    predicted = pa.array(found[0].reshape(len(found[0])))
    if not len(predicted):
        predicted = predicted.cast(prediction_type(predictor))
    arrays = {"prediction": predicted, "prediction_name": names_of(predicted, predictor.info)}
    if len(found) > 1:
        arrays |= _probabilities(predictor, found[1])
    return pa.RecordBatch.from_pydict(arrays)


def _probability_columns(predictor: Predictor) -> list[str]:
    """Return the columns of all classes that have a name, also of one that the model lacks."""
    names = [*(predictor.info.target_names or ()), *predictor.model.class_names]
    return [f"probability_{name}" for name in dict.fromkeys(names)]


def _probabilities(predictor: Predictor, found: npt.NDArray[Any]) -> dict[str, pa.Array]:
    """Return columns of probabilities; 0 for a class that the model was trained without."""
    known = predictor.model.class_names
    by_class = found.T if len(found) else np.empty((len(known), 0))
    if len(by_class) != len(known):
        raise VerificationError(
            f"{predictor.artifact} gives {len(by_class)} probabilities a row, and has {len(known)} "
            "classes"
        )
    given = {f"probability_{name}": by_class[place] for place, name in enumerate(known)}
    nothing = np.zeros(len(found))
    return {
        column: pa.array(given.get(column, nothing), pa.float64())
        for column in _probability_columns(predictor)
    }


def names_of(predicted: pa.Array, info: ModelInfo) -> pa.Array:
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
        raise VerificationError(
            f"{info.name} version {info.version} predicts a class that has no name: "
            f"{first_line(error)}"
        ) from error


def prediction_type(predictor: Predictor) -> pa.DataType:
    """Return the type of what a version predicts, as far as it shows before it is asked."""
    if predictor.example_predictions.get("predict"):
        return pa.array(predictor.example_predictions["predict"]).type
    classes = getattr(predictor.model.estimator, "classes_", None)
    return pa.array(classes).type if classes is not None else pa.float64()


def counts_of(answers: pa.RecordBatch | pa.Table) -> dict[str, int]:
    """Return how many rows there are of each class; nothing where numbers are predicted."""
    names = answers.column("prediction_name")
    if names.null_count == len(names):
        names = answers.column("prediction")
        if not pa.types.is_integer(names.type) and not pa.types.is_boolean(names.type):
            return {}
    counted = pc.value_counts(names)
    return {str(pair["values"]): pair["counts"] for pair in counted.to_pylist()}
