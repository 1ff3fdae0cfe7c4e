"""Predict with versions in a clean process, which has loaded nothing else.

    python -m registry_tools.evaluation.isolated_predict RESPONSE.json < PICKLED_JOBS

The jobs name folders of verified models. The response, which the process of the models writes, is JSON:
reading it runs no code.
"""

from __future__ import annotations

import gc
import itertools
import json
import math
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, is_regressor

from registry_tools.data.prediction_shape import check_class_values, class_values
from registry_tools.errors import (
    RegistryToolsError,
    UnsupportedOperation,
    VerificationError,
    error_summary,
    last_line,
)
from registry_tools.models.folder_loader import load_folder
from registry_tools.models.loaded_model import LoadedModel
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.processes import ResourceLimits, describe_exit

_LATENCY_ROUNDS = 100
_LIMITS = ResourceLimits(cpu_seconds=300)
_SECONDS = 600


@dataclass(frozen=True)
class PredictJob:
    """One model and the rows to predict."""

    folder: Path
    rows: Mapping[str, pd.DataFrame]  # by the caller's name of the table
    trust_policy: TrustPolicy = field(default_factory=TrustPolicy)
    timed_row: pd.DataFrame | None = None  # one row to measure the latency with
    # An ONNX file to compare with the model on the table `holdout`; the job writes it if it does not exist.
    onnx_file: Path | None = None


@dataclass(frozen=True)
class IsolatedPredictions:
    """The predictions of a model, by the caller's names of the tables."""

    predictions: Mapping[str, list[Any]]
    names: Mapping[str, list[str]]  # the predicted class names, or the classes as text
    probabilities: Mapping[str, list[list[float]] | None]
    classes: list[str]  # the class names, in the order of the probabilities
    codes: list[str]  # the codes of these classes; empty if the version has no target names
    milliseconds: list[float]  # for the timed row, measured in turns with the other jobs
    outputs: int  # predicted values for each row
    regressor: bool
    onnx: Mapping[str, Any] | None = None  # the comparison with the ONNX file, or its `error`

    @property
    def output_fault(self) -> str | None:
        """The reason why the predictions are not one value for each row; None if they are."""
        if self.outputs != 1:
            return (
                f"predicts {self.outputs} {'numbers' if self.regressor else 'classes'} for each row, and the "
                "gates compare one: register a version for each output"
            )
        return None


Predicted = IsolatedPredictions | VerificationError  # the error explains why predictions are missing


def checked_predictions(title: str, predictions: Predicted) -> IsolatedPredictions:
    """Return the predictions of the version `title`, which are one value for each row.

    Raises
    ------
    VerificationError
        If the model cannot load or predict.
    UnsupportedOperation
        If it predicts several values for each row.
    """
    if isinstance(predictions, VerificationError):
        raise VerificationError(f"{title}: {predictions}")
    if predictions.output_fault is not None:
        raise UnsupportedOperation(f"{title} {predictions.output_fault}")
    return predictions


def predict_in_clean_process(jobs: Sequence[PredictJob]) -> list[Predicted]:
    """Run the jobs one after the other in a new Python process, and time their rows in turns.

    Returns
    -------
    list
        For each job the predictions, or the error if the model cannot load or predict.
    """
    with tempfile.TemporaryDirectory() as scratch:
        response = Path(scratch, "response.json")
        path = (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH"))
        try:
            done = subprocess.run(
                [sys.executable, "-m", __spec__.name, str(response)],
                input=pickle.dumps([replace(job, folder=job.folder.resolve()) for job in jobs]),
                # The process must not import modules from the caller's folder.
                cwd=scratch,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))},
                capture_output=True,
                timeout=_SECONDS,
            )
        except subprocess.TimeoutExpired:
            return [VerificationError(f"no predictions within {_SECONDS} s in a clean process")] * len(jobs)
        if done.returncode != 0:
            ended = describe_exit(done.returncode)
            # After a signal, the last line of stderr does not explain the end of the process.
            stderr = "" if done.returncode < 0 else done.stderr.decode(errors="replace")
            reason = last_line(stderr, ended)[:300]
            return [VerificationError(f"the process that predicts failed: {reason}")] * len(jobs)
        return [
            VerificationError(each["error"]) if "error" in each else IsolatedPredictions(**each)
            for each in json.loads(response.read_text())
        ]


def _load_and_predict(job: PredictJob) -> tuple[LoadedModel, IsolatedPredictions] | str:
    """Return the model and its predictions, or the error if it cannot load or predict."""
    try:
        model = load_folder(job.folder, job.trust_policy)
        predicted = _predict(model, job.rows)
        if job.onnx_file is not None:
            predicted = replace(predicted, onnx=_compare_onnx(model, job.onnx_file, job.rows["holdout"]))
        return model, predicted
    except RegistryToolsError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - the parent reports any error of a model
        return error_summary(error, 300)


def _compare_onnx(model: LoadedModel, file: Path, holdout: pd.DataFrame) -> dict[str, Any]:
    from registry_tools.models.onnx.check import check_onnx
    from registry_tools.models.onnx.export import convert_and_check

    try:
        if file.exists():
            return check_onnx(model, file.read_bytes(), holdout).as_dict()
        content, check = convert_and_check(model, holdout)
    except UnsupportedOperation as error:
        return {"error": str(error)}
    if check.fault is None:
        file.write_bytes(content)
    return check.as_dict()


def _predict(model: LoadedModel, tables: Mapping[str, pd.DataFrame]) -> IsolatedPredictions:
    arrays = {table: model.predict(rows) for table, rows in tables.items()}
    outputs = max((math.prod(predicted.shape[1:]) for predicted in arrays.values()), default=1)
    predictions = {table: class_values(predicted) for table, predicted in arrays.items()}
    if isinstance(model.estimator, BaseEstimator):
        regressor = is_regressor(model.estimator)
    elif _declared_classes(model):
        regressor = False
    else:  # fractions decide
        values = itertools.chain.from_iterable(predictions.values())
        regressor = any(isinstance(value, float) and math.isfinite(value) for value in values)
    names: dict[str, list[str]] = {}
    probabilities: dict[str, list[list[float]] | None] = dict.fromkeys(tables)
    for table, predicted in predictions.items():
        if outputs == 1:
            kind = "a number" if regressor else "a class"
            check_class_values(predicted, _declared_classes(model), f"the {table} rows", kind)
        if outputs == 1 and not regressor:
            named = model.names_of(np.asarray(predicted)) if model.info.target_names else predicted
            names[table] = [str(value) for value in named]
            if hasattr(model.estimator, "predict_proba"):
                probabilities[table] = model.predict_proba(tables[table]).tolist()
    codes: Sequence[Any] = ()
    if model.info.target_names:
        codes = _declared_classes(model) or range(len(model.class_names))
    return IsolatedPredictions(
        predictions,
        names,
        probabilities,
        classes=list(model.class_names),
        codes=[str(code) for code in codes],
        milliseconds=[],
        outputs=outputs,
        regressor=regressor,
    )


def _declared_classes(model: LoadedModel) -> list[Any]:
    """Return the classes that a model with one output declares; empty if it declares none."""
    classes = getattr(model.estimator, "classes_", None)
    if classes is None or (isinstance(classes, list) and len(classes) > 1 and np.ndim(classes[0])):
        return []
    return class_values(np.asarray(classes).ravel())


def _time_in_turns(timed: Sequence[tuple[LoadedModel, pd.DataFrame, list[float]]]) -> None:
    """Append the milliseconds that each model takes for its row to its list.

    The models take turns, so that other processes slow all of them down equally.
    """
    for turn in range(_LATENCY_ROUNDS + 1):
        for model, row, milliseconds in timed:
            began = time.perf_counter()
            model.predict(row)
            if turn:  # the first turn warms up
                milliseconds.append((time.perf_counter() - began) * 1000)


def main(response: str) -> None:
    """Run the pickled jobs on stdin and write the response file."""
    gc.disable()  # scanning the imported objects takes a sixth of the time
    _LIMITS.apply()
    jobs: list[PredictJob] = pickle.load(sys.stdin.buffer)
    done = [_load_and_predict(job) for job in jobs]
    _time_in_turns(
        [
            (found[0], job.timed_row, found[1].milliseconds)
            for job, found in zip(jobs, done, strict=True)
            if job.timed_row is not None and not isinstance(found, str)
        ]
    )
    results = [{"error": found} if isinstance(found, str) else vars(found[1]) for found in done]
    Path(response).write_text(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
