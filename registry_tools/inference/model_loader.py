"""Load a version from its files, warm it up, and compare it with its recorded predictions."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import time
from datetime import datetime, timezone
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline

from registry_tools.errors import InputError, UnsupportedOperation, VerificationError, first_line
from registry_tools.evaluation.gates import version as version_gates
from registry_tools.inference import decoder
from registry_tools.inference.decoder import Matrix, NumericSchema
from registry_tools.inference.mlflow_scoring import MlflowScoring
from registry_tools.inference.model_artifact import ModelArtifact
from registry_tools.inference.predictor import METHODS, Predictor
from registry_tools.models.loaded_model import load_folder
from registry_tools.models.trust_policy import TrustPolicy

# A batch that takes longer than this leaves the event loop, which has other requests to serve.
_INLINE_SECONDS = 0.002
_MOST_INLINE_ROWS = 4096
_MEASURED_ROWS = 1000


def load(artifact: ModelArtifact, policy: TrustPolicy) -> Predictor:
    """Load a version, warm it up, and compare its predictions with the recorded ones.

    Raises
    ------
    VerificationError
        If it does not load, contains untrusted types, or predicts other than recorded.
    """
    loaded = load_folder(artifact.model, policy)
    info = dataclasses.replace(
        loaded.info,
        name=artifact.name,
        version=artifact.version,
        stage=artifact.stage,
        run_id=artifact.run_id,
        digest=artifact.digest,
    )
    model = dataclasses.replace(loaded, info=info)
    from_skops = type(model.estimator).__module__ != "mlflow.pyfunc"
    numeric_schema = NumericSchema.of(info.signature) if from_skops else None
    predictor = Predictor(
        artifact=artifact,
        model=model,
        numeric_schema=numeric_schema,
        mlflow_scoring=MlflowScoring(artifact.model, model),
        estimator=model.estimator if numeric_schema is None else without_feature_names(model.estimator),
        loaded_at=datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
    )
    try:
        return _check_example(predictor)
    except VerificationError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise VerificationError(f"{artifact} fails on its own example: {reason}") from error


def _check_example(predictor: Predictor) -> Predictor:
    """Predict its example with every method, and choose how it takes rows."""
    recorded = _read_recorded(predictor.artifact)
    body = _example(predictor.artifact, recorded)
    if predictor.numeric_schema is None:
        if body is None:
            return predictor
        predictions = {
            m: predictor.mlflow_scoring.predict_json(body, m) for m in METHODS if _has_method(predictor, m)
        }
        _compare(predictor.artifact, recorded, predictions)
        return dataclasses.replace(predictor, example=body, example_predictions=predictions)
    rows = decoder.matrix_from_json(body, predictor.numeric_schema) if body is not None else None
    if rows is None:
        # Without an example, it is unknown whether it takes a matrix in place of named columns.
        return dataclasses.replace(predictor, numeric_schema=None, estimator=predictor.model.estimator)
    by_name = dataclasses.replace(predictor, needs_frame=True, estimator=predictor.model.estimator)
    try:
        predictions = _predict(predictor, rows)
        _compare(predictor.artifact, recorded or _record_now(by_name, rows), predictions)
    except (VerificationError, InputError):
        predictor = by_name
        predictions = _predict(predictor, rows)
        _compare(predictor.artifact, recorded, predictions)
    return dataclasses.replace(
        predictor, inline_rows=_inline_rows(predictor, rows), example=body, example_predictions=predictions
    )


def _record_now(by_name: Predictor, rows: Matrix) -> dict[str, Any]:
    """Return the predictions for named columns, for a version without recorded predictions."""
    predictions = _predict(by_name, rows)
    return {"predictions": predictions["predict"], "probabilities": predictions.get("predict_proba")}


def without_feature_names(estimator: Any) -> Any:
    """Return a shallow copy that takes a matrix without a word on its missing column names.

    The columns were put in order by then. So are those of the estimators that it holds, such as
    the one that is calibrated. A pipeline of one step is that step.
    """
    if isinstance(estimator, Pipeline) and len(estimator.steps) == 1:
        return without_feature_names(estimator.steps[0][1])
    copied = copy.copy(estimator)
    attributes = {name: _without_feature_names(value) for name, value in vars(estimator).items()}
    attributes.pop("feature_names_in_", None)
    vars(copied).clear()
    vars(copied).update(attributes)
    return copied


def _without_feature_names(value: Any) -> Any:
    if isinstance(value, (list, tuple)) and type(value) in {list, tuple}:
        return type(value)(_without_feature_names(each) for each in value)
    # What holds one of a calibration is no estimator itself.
    holds_one = "estimator" in getattr(value, "__dict__", {})
    if holds_one or (isinstance(value, BaseEstimator) and hasattr(value, "__dict__")):
        return without_feature_names(value)
    return value


def _has_method(predictor: Predictor, method: str) -> bool:
    return hasattr(predictor.model.estimator, method)


def _predict(predictor: Predictor, rows: Matrix) -> dict[str, Any]:
    predictions = {}
    for method in METHODS:
        if _has_method(predictor, method):
            with contextlib.suppress(UnsupportedOperation):  # probabilities of several outputs
                predictions[method] = predictor.predict(rows, method)
    return predictions


def _compare(artifact: ModelArtifact, recorded: dict[str, Any] | None, predictions: dict[str, Any]) -> None:
    if recorded is None:
        return
    result = version_gates.predictions_gate(
        recorded, {"predictions": predictions["predict"], "probabilities": predictions.get("predict_proba")}
    )
    if not result.passed:
        raise VerificationError(f"{artifact}: {result.message}")


def _read_recorded(artifact: ModelArtifact) -> dict[str, Any] | None:
    if not artifact.recorded_predictions.is_file():
        return None
    content: dict[str, Any] = json.loads(artifact.recorded_predictions.read_text(encoding="utf-8"))
    return content


def _example(artifact: ModelArtifact, recorded: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return rows to check a version with, as a request: the recorded, or MLflow's example."""
    if recorded is not None:
        return {"dataframe_split": recorded["rows"]}
    kept = artifact.model / "serving_input_example.json"
    if not kept.is_file():
        return None
    content: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
    return content


def _inline_rows(predictor: Predictor, rows: Matrix) -> int:
    """Measure how many rows it predicts on the event loop without keeping others waiting."""
    many = np.resize(rows, (_MEASURED_ROWS, rows.shape[1]))
    one = min(_seconds(predictor, rows[:1]) for _ in range(5))
    thousand = min(_seconds(predictor, many) for _ in range(3))
    if one > _INLINE_SECONDS:
        return 0
    each = max(thousand - one, 1e-9) / (_MEASURED_ROWS - 1)
    return min(int((_INLINE_SECONDS - one) / each) + 1, _MOST_INLINE_ROWS)


def _seconds(predictor: Predictor, rows: Matrix) -> float:
    began = time.perf_counter()
    predictor.predict(rows, "predict")
    return time.perf_counter() - began
