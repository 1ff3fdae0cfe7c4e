"""A version that is served: loaded, warmed up, held against its recorded answer; no transport."""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import numpy as np
import sklearn
from sklearn.pipeline import Pipeline

from registry_tools import gates, integrity
from registry_tools.errors import InputError, UnsupportedOperation, VerificationError
from registry_tools.formats import (
    LoadedModel,
    ModelInfo,
    TrustPolicy,
    describe,
    load_folder,
    one_line,
)
from registry_tools.serving.inputs import Form, Matrix
from registry_tools.serving.lean import whole_mlflow
from registry_tools.serving.mlflow_reader import MlflowReader
from registry_tools.serving.source import Source

_log = logging.getLogger(__name__)

METHODS = ("predict", "predict_proba")

# A batch that takes longer than this leaves the event loop, which has others to answer.
_INLINE_SECONDS = 0.002
_MOST_INLINE_ROWS = 4096
_MEASURED_ROWS = 1000


@dataclass(frozen=True, eq=False)
class Served:
    """One version of a model, ready to answer."""

    source: Source
    model: LoadedModel
    form: Form | None  # None if rows of numbers are not enough for it
    reader: MlflowReader  # for every request that `inputs` does not read
    estimator: Any  # what answers rows of numbers
    needs_frame: bool = False  # it takes its columns by name
    inline_rows: int = 0  # as many rows are answered within `_INLINE_SECONDS`
    loaded_at: str = ""
    example: dict[str, Any] | None = None  # JSON of MLflow's protocol that it was tried with
    answers: dict[str, list[Any]] = dataclasses.field(default_factory=dict)  # to it, by method

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
        return answers.tolist()

    def _function(self, method: str) -> Callable[[Any], Any]:
        function = getattr(self.estimator, method, None)
        if function is None:
            kind = type(self.estimator).__name__
            raise UnsupportedOperation(f"{self.source} ({kind}) has no {method}")
        return function

    def _frame(self, rows: Matrix) -> Any:
        from registry_tools.frames import frame_of

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


def load(source: Source, policy: TrustPolicy) -> Served:
    """Load a version, warm it up, and compare its answers with those that were recorded.

    Raises
    ------
    VerificationError
        If it does not load, holds what is not trusted, or does not answer as was recorded.
    """
    if not _is_skops(source):
        whole_mlflow()  # MLflow is to load it
    loaded = load_folder(source.model, policy)
    info = dataclasses.replace(
        loaded.info,
        name=source.name,
        version=source.version,
        stage=source.stage,
        run_id=source.run_id,
        digest=source.digest,
    )
    model = dataclasses.replace(loaded, info=info)
    from_skops = type(model.estimator).__module__ != "mlflow.pyfunc"
    served = Served(
        source=source,
        model=model,
        form=Form.of(info.signature) if from_skops else None,
        reader=MlflowReader(source.model, model),
        estimator=_by_position(model.estimator) if from_skops else model.estimator,
        loaded_at=datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
    )
    try:
        return _tried(served)
    except VerificationError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise VerificationError(f"{source} does not answer its own example: {reason}") from error


def _is_skops(source: Source) -> bool:
    try:
        return integrity.format_of(describe(source.model).flavors)[0] == "skops"
    except integrity.RunsCode:
        return False


def _tried(served: Served) -> Served:
    """Let it answer its example in every way that it will be asked in."""
    recorded = _recorded(served.source)
    body = _example(served.source, recorded)
    if body is None:
        return served
    if served.form is None:
        given = {m: served.reader.answers(body, m) for m in METHODS if _has(served, m)}
        _compare(served.source, recorded, given)
        return dataclasses.replace(served, example=body, answers=given)
    from registry_tools.serving import inputs

    rows = inputs.from_content(body, served.form)
    if rows is None:
        return dataclasses.replace(served, form=None)
    try:
        given = _answers(served, rows)
        _compare(served.source, recorded, given)
    except (VerificationError, InputError):
        # A pipeline may take its columns by name.
        served = dataclasses.replace(served, needs_frame=True, estimator=served.model.estimator)
        given = _answers(served, rows)
        _compare(served.source, recorded, given)
    return dataclasses.replace(
        served, inline_rows=_inline_rows(served, rows), example=body, answers=given
    )


def _by_position(estimator: Any) -> Any:
    """Return a shallow copy that takes a matrix without a word on its missing column names.

    The columns were put in order by then. A pipeline of one step is that step.
    """
    if isinstance(estimator, Pipeline):
        (name, first), *rest = estimator.steps
        if not rest:
            return _by_position(first)
        copied = copy.copy(estimator)
        copied.steps = [(name, _by_position(first)), *rest]
        return copied
    copied = copy.copy(estimator)
    vars(copied).pop("feature_names_in_", None)
    return copied


def _has(served: Served, method: str) -> bool:
    return hasattr(served.model.estimator, method)


def _answers(served: Served, rows: Matrix) -> dict[str, Any]:
    return {m: served.answer(rows, m) for m in METHODS if _has(served, m)}


def _compare(source: Source, recorded: dict[str, Any] | None, given: dict[str, Any]) -> None:
    if recorded is None:
        return
    result = gates.answers_gate(
        recorded,
        {"predictions": given["predict"], "probabilities": given.get("predict_proba")},
    )
    if not result.passed:
        raise VerificationError(f"{source}: {result.message}")


def _recorded(source: Source) -> dict[str, Any] | None:
    if not source.answer.is_file():
        return None
    content: dict[str, Any] = json.loads(source.answer.read_text(encoding="utf-8"))
    return content


def _example(source: Source, recorded: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return rows to try a version on, as a request: those of its answer, or those MLflow kept."""
    if recorded is not None:
        return {"dataframe_split": recorded["rows"]}
    kept = source.model / "serving_input_example.json"
    if not kept.is_file():
        return None
    content: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
    return content


def _inline_rows(served: Served, rows: Matrix) -> int:
    """Measure how many rows it answers on the event loop without keeping others waiting."""
    many = np.resize(rows, (_MEASURED_ROWS, rows.shape[1]))
    one = min(_seconds(served, rows[:1]) for _ in range(5))
    thousand = min(_seconds(served, many) for _ in range(3))
    if one > _INLINE_SECONDS:
        return 0
    each = max(thousand - one, 1e-9) / (_MEASURED_ROWS - 1)
    return min(int((_INLINE_SECONDS - one) / each) + 1, _MOST_INLINE_ROWS)


def _seconds(served: Served, rows: Matrix) -> float:
    began = time.perf_counter()
    served.answer(rows, "predict")
    return time.perf_counter() - began
