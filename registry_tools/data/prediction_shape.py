"""Check that a model returned one prediction for each row, and a class of the model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from registry_tools.errors import UnsupportedOperation, VerificationError


def check_predictions(values: Any, rows: int, method: str = "predict") -> npt.NDArray[Any]:
    """Return predictions or probabilities as an array with one entry for each row.

    Parameters
    ----------
    values
        The return value of the model.
    rows
        The number of rows that were predicted.
    method
        The method that returned the values: `predict` or `predict_proba`.

    Returns
    -------
    array
        Shape (rows,) or (rows, outputs) for predictions, (rows, classes) for probabilities.

    Raises
    ------
    VerificationError
        If the number of entries differs from the number of rows.
    UnsupportedOperation
        If the values are probabilities of several outputs.
    """
    if isinstance(values, list) and values and isinstance(values[0], np.ndarray):
        # scikit-learn's multi-output classifiers return a list with an array for each output.
        if len(values) > 1:
            raise UnsupportedOperation(f"the model gives probabilities of {len(values)} outputs: use predict")
        values = values[0]
    array = np.asarray(values)
    check_prediction_count(len(array) if array.ndim else 0, rows, method)
    return array


def check_prediction_count(count: int, rows: int, method: str = "predict") -> None:
    """Check that the number of predictions, or of rows of probabilities, is the number of rows.

    Raises
    ------
    VerificationError
        If the numbers differ.
    """
    if count != rows:
        plural = "s" * (count != 1)
        returned = f"row{plural} of probabilities" if method == "predict_proba" else f"prediction{plural}"
        raise VerificationError(
            f"the model returned {count} {returned} for {rows} row{'s' * (rows != 1)}: it does not predict "
            "row by row; a text vectorizer, for example, needs its column from a ColumnTransformer"
        )


def flatten_one_output(predictions: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return predictions of shape (rows, 1) with shape (rows,), and all others unchanged."""
    return predictions.ravel() if math.prod(predictions.shape[1:]) == 1 else predictions


def class_values(predictions: npt.NDArray[Any]) -> list[Any]:
    """Return predicted classes as Python values; a whole float such as 2.0 becomes the integer 2."""
    return [
        int(value) if isinstance(value, float) and value.is_integer() else value
        for value in predictions.tolist()
    ]


def check_class_values(
    values: Sequence[Any], classes: Sequence[Any], rows: str, kind: str = "a class"
) -> None:
    """Refuse predictions that are missing, infinite or not classes of the model.

    Parameters
    ----------
    values, classes
        The predictions and the classes, as `class_values` returns them. `classes` is empty if the
        model declares none.
    rows
        A description of the rows, for the message.
    kind
        The name of a valid prediction, for the message.

    Raises
    ------
    VerificationError
        If a prediction is refused. The message names the row, from 0, and the prediction.
    """
    known = {_written(value) for value in classes}
    for row, value in enumerate(values):
        if value is None or (isinstance(value, float | np.floating) and not math.isfinite(value)):
            raise VerificationError(f"row {row} of {rows}: the model predicts {value}, which is not {kind}")
        if classes and _written(value) not in known:
            shown = ", ".join(str(each) for each in classes[:5]) + ", …" * (len(classes) > 5)
            raise VerificationError(
                f"row {row} of {rows}: the model predicts {value!r}, which is not one of its classes {shown}"
            )


def _written(value: Any) -> tuple[str, bool]:
    """Return a key that distinguishes the classes True, 1 and '1'."""
    return str(value), isinstance(value, str)


def check_one_output(predictions: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return predictions as one value for each row, shape (rows,).

    Raises
    ------
    UnsupportedOperation
        If the model predicts several values for each row.
    """
    flat = flatten_one_output(predictions)
    if flat.ndim != 1:
        raise UnsupportedOperation(
            f"the model predicts {math.prod(flat.shape[1:])} values for each row; only one is supported"
        )
    return flat
