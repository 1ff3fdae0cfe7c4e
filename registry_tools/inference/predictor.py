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
from registry_tools.inference.decoder import Form, Matrix
from registry_tools.inference.mlflow_scoring import MlflowReader
from registry_tools.inference.model_artifact import Source
from registry_tools.models.formats import LoadedModel, ModelInfo

_log = logging.getLogger(__name__)

METHODS = ("predict", "predict_proba")


@dataclass(frozen=True, eq=False)
class Served:
    """One version of a model, ready to answer."""

    source: Source
    model: LoadedModel
    form: Form | None  # None if rows of numbers are not enough for it
    reader: MlflowReader  # for every request that `inputs` does not read
    estimator: Any  # what answers rows of numbers
    needs_frame: bool = False  # it takes its columns by name
    inline_rows: int = 0  # as many rows are answered without keeping others waiting
    loaded_at: str = ""
    example: dict[str, Any] | None = None  # JSON of MLflow's protocol that it was tried with
    answers: dict[str, list[Any]] = field(default_factory=dict)  # to it, by method

    @property
    def info(self) -> ModelInfo:
        """What the version says of itself."""
        return self.model.info

    @functools.cached_property
    def label(self) -> str:
        """The version as a label of metrics."""
        return str(self.source.version)

    @functools.cached_property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The version as headers of an answer."""
        found = [
            (b"x-model-name", _header(self.source.name)),
            (b"x-model-version", str(self.source.version).encode()),
        ]
        if self.source.stage is not None:
            found.append((b"x-model-stage", self.source.stage.encode()))
        return found

    def answer(self, rows: Matrix, method: str) -> list[Any]:
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
        answers: list[Any] = self.array(rows, method).tolist()
        return answers

    def array(self, rows: Matrix, method: str) -> Any:
        """Answer as `answer`, with an array."""
        function = self._function(method)
        taken = self._frame(rows) if self.needs_frame else rows
        try:
            if rows.dtype.kind == "f" and not np.isfinite(rows).all():
                with sklearn.config_context(assume_finite=False):
                    answers = function(taken)
            else:
                answers = function(taken)
        except Exception as error:
            # Whatever rows make a model raise is told as MLflow tells it: the rows do not fit.
            if not isinstance(error, self.model.refusals):
                _log.warning("%s raised %s on a request", self.source, type(error).__name__)
            raise InputError(_refusal(rows, self.form)) from error
        if len(answers) != len(rows):
            raise VerificationError(
                f"{self.source} gave {len(answers)} answers to {len(rows)} rows"
            )
        return answers

    def _function(self, method: str) -> Callable[[Any], Any]:
        function = getattr(self.estimator, method, None)
        if function is None:
            kind = type(self.estimator).__name__
            raise UnsupportedOperation(f"{self.source} ({kind}) has no {method}")
        return function

    def _frame(self, rows: Matrix) -> Any:
        from registry_tools.data.coercion import frame_of

        return frame_of(rows, self.info.signature)


def _header(text: str) -> bytes:
    return text.encode("ascii", "backslashreplace")


def _refusal(rows: Matrix, form: Form | None) -> str:
    holes = np.argwhere(~np.isfinite(rows.astype(np.float64, copy=False)))
    if len(holes) and form is not None:
        row, column = holes[0]
        return (
            f"column {form.names[column]!r}, row {row}: a value that is missing or not finite, and "
            "this model was trained without any"
        )
    return "the model cannot take these rows"
