"""A loaded version: predict with it, name its classes, and explain its predictions.

This module imports pandas only for tables, and MLflow never: without them, a process that predicts with
skops models starts in half the time and half the memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from registry_tools.data.prediction_shape import check_predictions, class_values, flatten_one_output
from registry_tools.data.schema import Column, TensorSchema, UnsupportedTensor
from registry_tools.errors import InputError, UnsupportedOperation, VerificationError, first_line

if TYPE_CHECKING:
    from registry_tools.models.explanation.contributions import Explanation


@dataclass(frozen=True)
class ModelInfo:
    """The loaded version, its inputs and its outputs."""

    name: str
    version: int
    stage: str | None  # the stage of the reference; None for a reference by number
    run_id: str | None
    digest: str | None
    target_names: tuple[str, ...] | None
    signature: tuple[Column, ...] | None  # None if columns lack names or types
    tensor: TensorSchema | UnsupportedTensor | None = None  # for a model without named columns
    inputs: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)  # in the form of the `MLmodel`
    outputs: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class LoadedModel:
    """A loaded version, ready to predict.

    Rows may be a DataFrame or a sequence of mappings, which are matched by column name. They may also
    be an array or a sequence of sequences of shape (rows, columns), which are matched by position. A
    model with a tensor signature matches all rows by position.
    """

    info: ModelInfo
    estimator: Any  # an estimator or, for a model that runs code, MLflow's PyFuncModel
    input_errors: tuple[type[Exception], ...] = (ValueError, TypeError)  # raised for unfit rows

    def predict(self, rows: Any) -> npt.NDArray[Any]:
        """Return the predictions of the estimator.

        Parameters
        ----------
        rows
            The rows, in one of the forms that the class describes.

        Returns
        -------
        array
            The predictions, such as class codes; shape (rows,), or (rows, outputs) for several outputs.

        Raises
        ------
        InputError
            If the rows do not fit the signature. The message names the row, the column and the value.
        VerificationError
            If the number of predictions differs from the number of rows.
        """
        return flatten_one_output(self._call("predict", rows))

    def predict_names(self, rows: Any) -> npt.NDArray[Any]:
        """Return the names of the predicted classes, shape (rows,).

        Parameters
        ----------
        rows
            The rows, as for `predict`.

        Raises
        ------
        UnsupportedOperation
            If the version has no target names and its predictions are not text.
        InputError, VerificationError
            As for `predict`, or if a prediction is not the code of a class.
        """
        return self.names_of(self.predict(rows))

    def names_of(self, predicted: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the class names for predictions, shape (rows,).

        Parameters
        ----------
        predicted
            The result of `predict`, shape (rows,).

        Raises
        ------
        UnsupportedOperation
            If the version has no target names and the predictions are not text.
        VerificationError
            If a prediction is not the code of a class.
        """
        if self.info.target_names is None:
            if predicted.dtype.kind in "OU":
                return predicted
            raise UnsupportedOperation(
                f"{self.info.name} version {self.info.version} has no target names: "
                "use predict, or register it with metadata={'target_names': [...]}"
            )
        names = np.asarray(self.info.target_names)
        coded = np.isin(predicted, np.arange(len(names)))
        if not coded.all():
            raise VerificationError(
                f"{self.info.name} version {self.info.version} predicts {predicted[~coded][0]!r}, but its "
                f"target names have the codes 0 to {len(names) - 1}"
            )
        return names[predicted.astype(int)]

    def predict_proba(self, rows: Any) -> npt.NDArray[np.float64]:
        """Return the probability of each class, shape (rows, classes).

        The columns are in the order of `class_names`.

        Parameters
        ----------
        rows
            The rows, as for `predict`.

        Raises
        ------
        UnsupportedOperation
            If the model has no probabilities.
        InputError, VerificationError
            As for `predict`.
        """
        if not hasattr(self.estimator, "predict_proba"):
            raise UnsupportedOperation(
                f"{self.info.name} version {self.info.version} "
                f"({type(self.estimator).__name__}) gives no probabilities: use predict"
            )
        return self._call("predict_proba", rows)

    def explain(self, rows: Any) -> Explanation:
        """Return how much each column contributes to the predictions of rows.

        Contributions are exact for linear models. For trees they are SHAP values; those of scikit-learn
        need the extra `explain`.

        Parameters
        ----------
        rows
            The rows, as for `predict`.

        Returns
        -------
        Explanation
            The contributions, which add up to the score of the predicted class or to the number.

        Raises
        ------
        UnsupportedOperation
            If the model has no contributions, or its package is not installed.
        InputError, VerificationError
            As for `predict`.
        """
        from registry_tools.models.explanation.contributions import explain

        frame = self._coerced(rows)
        predicted = self.predict(frame)
        try:
            return explain(self.estimator, frame, predicted)
        except UnsupportedOperation as error:
            raise UnsupportedOperation(f"{self.info.name} version {self.info.version} {error}") from error
        except self.input_errors as error:
            raise UnsupportedOperation(
                f"{self.info.name} version {self.info.version} cannot be explained: {first_line(error)}"
            ) from error

    def _coerced(self, rows: Any) -> Any:
        """Return rows as a DataFrame, or as an array for a tensor signature."""
        from registry_tools.data.coercion import coerce, coerce_tensor

        tensor = self.info.tensor
        return coerce(rows, self.info.signature) if tensor is None else coerce_tensor(rows, tensor)

    def _call(self, method: str, rows: Any) -> npt.NDArray[Any]:
        tensor, frame = self.info.tensor, self._coerced(rows)
        try:
            predicted = getattr(self.estimator, method)(frame)
        except self.input_errors as error:
            missing = np.argwhere(frame.isna().to_numpy() if tensor is None else np.isnan(frame))
            if len(missing):
                row, column = missing[0]
                name = frame.columns[column] if tensor is None else column
                raise InputError(
                    f"column {str(name)!r}, row {row}: missing value, and this model was trained without any"
                ) from error
            raise InputError(f"the model cannot predict these rows: {first_line(error)}") from error
        return check_predictions(predicted, len(frame), method)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the columns of `predict_proba`.

        A class without training rows has no column.
        """
        names = self.info.target_names
        classes = getattr(self.estimator, "classes_", None)
        if classes is None:
            return names or ()
        by_code: dict[Any, str] = dict(enumerate(names or ()))
        if isinstance(classes, list):  # an array for each output
            classes = classes[0] if len(classes) == 1 else np.array([str(output) for output in classes])
        return tuple(by_code.get(code, str(code)) for code in class_values(np.asarray(classes)))
