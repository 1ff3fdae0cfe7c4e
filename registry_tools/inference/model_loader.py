"""Load a version from its files, warm it up, and compare it with its recorded predictions."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import timeit
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline

from registry_tools.errors import InputError, UnsupportedOperation, VerificationError, first_line
from registry_tools.evaluation.gates import version as version_gates
from registry_tools.inference.decoder import Matrix, NumericSchema
from registry_tools.inference.mlflow_scoring import MlflowScoring
from registry_tools.inference.model_artifact import ModelArtifact
from registry_tools.inference.predictor import Predictor
from registry_tools.models.folder_loader import load_folder
from registry_tools.models.trust_policy import TrustPolicy

# A batch that takes longer than this leaves the event loop, which has other requests to serve.
_INLINE_SECONDS = 0.002
_MOST_INLINE_ROWS = 4096
_MEASURED_ROWS = 1000


def load(artifact: ModelArtifact, trust_policy: TrustPolicy) -> Predictor:
    """Load a version, warm it up, and compare its predictions with the recorded ones.

    Raises
    ------
    VerificationError
        If it does not load, contains untrusted types, or predicts other than recorded.
    """
    model = load_folder(artifact.model, trust_policy, artifact, artifact.stage)
    from_skops = type(model.estimator).__module__ != "mlflow.pyfunc"
    numeric_schema = NumericSchema.of(model.info.signature) if from_skops else None
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
    """Send the example through the path of a request, and choose how the version takes rows."""
    recorded = _read_json(predictor.artifact.recorded_predictions)
    if recorded is not None:
        example: dict[str, Any] | None = {"dataframe_split": recorded["rows"]}
    else:  # MLflow's example
        example = _read_json(predictor.artifact.model / "serving_input_example.json")
    classes = getattr(predictor.model.estimator, "classes_", None)
    _check_names(predictor, classes.tolist() if isinstance(classes, np.ndarray) else None)
    if example is None:
        # It is unknown whether the version takes a matrix in place of named columns.
        return _without_matrix(predictor)
    body = json.dumps(example).encode()
    rows, _ = predictor.decode_json(body)
    if rows is None:
        predictor = _without_matrix(predictor)
        predictions = _predict(predictor, body)
    else:
        by_name = dataclasses.replace(predictor, needs_frame=True, estimator=predictor.model.estimator)
        try:
            predictions = _predict(predictor, body)
            _compare(predictor.artifact, recorded or _recorded(_predict(by_name, body)), predictions)
        except (VerificationError, InputError):
            predictor = by_name
            predictions = _predict(predictor, body)
    _compare(predictor.artifact, recorded, predictions)
    _check_names(predictor, predictions["predict"])
    inline_rows = _inline_rows(predictor, rows) if rows is not None else 0
    return dataclasses.replace(
        predictor, inline_rows=inline_rows, example=example, example_predictions=predictions
    )


def _without_matrix(predictor: Predictor) -> Predictor:
    return dataclasses.replace(predictor, numeric_schema=None, estimator=predictor.model.estimator)


def _check_names(predictor: Predictor, codes: Any) -> None:
    """Refuse a version that predicts, or was trained on, a code without a class name."""
    if predictor.info.target_names is None or not isinstance(codes, list):
        return
    try:
        predictor.names_of(codes)
    except UnsupportedOperation as error:
        raise VerificationError(str(error)) from error


def without_feature_names(estimator: Any) -> Any:
    """Return a shallow copy that takes a matrix without a warning of its missing column names.

    Estimators that it holds, such as the one that is calibrated, are copied too. A pipeline of one
    step becomes that step; anything else than an estimator is returned as it is.
    """
    if isinstance(estimator, Pipeline) and len(estimator.steps) == 1:
        return without_feature_names(estimator.steps[0][1])
    if type(estimator) in {list, tuple}:
        return type(estimator)(map(without_feature_names, estimator))
    attributes = getattr(estimator, "__dict__", {})
    # A calibration holds estimators in objects that are not estimators.
    if not attributes or not ("estimator" in attributes or isinstance(estimator, BaseEstimator)):
        return estimator
    copied = copy.copy(estimator)
    vars(copied).update({name: without_feature_names(value) for name, value in attributes.items()})
    vars(copied).pop("feature_names_in_", None)
    return copied


def _predict(predictor: Predictor, body: bytes) -> dict[str, Any]:
    """Return the predictions of each method for a JSON body, out of the JSON of the response."""
    predictions = {"predict": predictor.predict_json(body, "predict")}
    if hasattr(predictor.model.estimator, "predict_proba"):
        with contextlib.suppress(UnsupportedOperation):  # probabilities of several outputs
            predictions["predict_proba"] = predictor.predict_json(body, "predict_proba")
    return predictions


def _recorded(predictions: dict[str, Any]) -> dict[str, Any]:
    """Return predictions out of a response in the form of the recorded ones."""
    found = predictions["predict"]
    if isinstance(found, list):  # MLflow writes a row of a table as an object
        found = [list(row.values()) if isinstance(row, dict) else row for row in found]
    return {"predictions": found, "probabilities": predictions.get("predict_proba")}


def _compare(artifact: ModelArtifact, recorded: dict[str, Any] | None, predictions: dict[str, Any]) -> None:
    if recorded is not None:
        result = version_gates.predictions_gate(recorded, _recorded(predictions))
        if not result.passed:
            raise VerificationError(f"{artifact}: {result.message}")


def _read_json(file: Path) -> dict[str, Any] | None:
    """Return the content of a file; None if it is missing."""
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def _inline_rows(predictor: Predictor, rows: Matrix) -> int:
    """Measure how many rows it predicts on the event loop without keeping others waiting."""
    many = np.resize(rows, (_MEASURED_ROWS, rows.shape[1]))
    one = min(timeit.repeat(lambda: predictor.predict(rows[:1], "predict"), number=1))
    thousand = min(timeit.repeat(lambda: predictor.predict(many, "predict"), number=1, repeat=3))
    if one > _INLINE_SECONDS:
        return 0
    each = max(thousand - one, 1e-9) / (_MEASURED_ROWS - 1)
    return min(int((_INLINE_SECONDS - one) / each) + 1, _MOST_INLINE_ROWS)
