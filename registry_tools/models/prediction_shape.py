"""The one check that a model returned one prediction a row, wherever predictions are taken."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from registry_tools.errors import UnsupportedOperation, VerificationError


def check_predictions(values: Any, rows: int, method: str = "predict") -> npt.NDArray[Any]:
    """Return the predictions or probabilities of some rows as an array, one entry a row.

    Parameters
    ----------
    values
        As the model returned them.
    rows
        How many rows the model was given.
    method
        The method that returned them: `predict` or `predict_proba`.

    Raises
    ------
    VerificationError
        If there are more or fewer entries than rows: nobody knows to which rows they belong.
    UnsupportedOperation
        If they are probabilities of several outputs.
    """
    if isinstance(values, list) and values and isinstance(values[0], np.ndarray):
        # The probabilities of scikit-learn's multi-output classifiers: an array for each output.
        if len(values) > 1:
            raise UnsupportedOperation(f"the model gives probabilities of {len(values)} outputs: use predict")
        values = values[0]
    array = np.asarray(values)
    check_prediction_count(len(array) if array.ndim else 0, rows, method)
    return array


def check_prediction_count(count: int, rows: int, method: str = "predict") -> None:
    """Refuse more or fewer predictions, or rows of probabilities, than rows.

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
    """Return predictions of shape (rows, 1) as (rows,), and all others as they are."""
    return predictions.ravel() if math.prod(predictions.shape[1:]) == 1 else predictions


def class_values(predictions: npt.NDArray[Any]) -> list[Any]:
    """Return predicted classes as plain values: 2.0 is the class 2."""
    return [
        int(value) if isinstance(value, float) and value.is_integer() else value
        for value in predictions.tolist()
    ]


def check_class_values(values: Sequence[Any], classes: Sequence[Any], rows: str) -> None:
    """Refuse predictions that are missing, infinite or none of the classes of the model.

    Parameters
    ----------
    values, classes
        As `class_values` returns them; no classes if the model declares none.
    rows
        Which rows were predicted, for the message.

    Raises
    ------
    VerificationError
        Names the row, counted from 0, and its prediction.
    """
    known = {_written(value) for value in classes}
    for row, value in enumerate(values):
        if value is None or (isinstance(value, float | np.floating) and not math.isfinite(value)):
            raise VerificationError(f"row {row} of {rows}: the model predicts {value}, which is no class")
        if classes and _written(value) not in known:
            shown = ", ".join(str(each) for each in classes[:5]) + ", …" * (len(classes) > 5)
            raise VerificationError(
                f"row {row} of {rows}: the model predicts {value!r}, which is not one of its classes {shown}"
            )


def _written(value: Any) -> tuple[str, bool]:
    """Return a key that distinguishes classes: True is not 1, and neither is the text '1'."""
    return str(value), isinstance(value, str)


def check_one_output(predictions: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return predictions as one value a row, shape (rows,).

    Raises
    ------
    UnsupportedOperation
        If the model predicts several values a row.
    """
    flat = flatten_one_output(predictions)
    if flat.ndim != 1:
        raise UnsupportedOperation(
            f"the model predicts {math.prod(flat.shape[1:])} values a row, and one is needed"
        )
    return flat
