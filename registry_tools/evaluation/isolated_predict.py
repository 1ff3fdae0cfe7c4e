"""Predict with versions in a clean process, which has loaded nothing else.

    python -m registry_tools.evaluation.isolated_predict REQUEST.json RESPONSE.json

The request names folders of verified models; the response has their predictions.
"""

from __future__ import annotations

import gc
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, is_regressor

from registry_tools.errors import RegistryToolsError, VerificationError, error_summary, first_line, last_line
from registry_tools.models.loaded_model import LoadedModel, load_folder
from registry_tools.models.prediction_shape import check_class_values, class_values
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
    policy: TrustPolicy = field(default_factory=TrustPolicy)
    timed_row: pd.DataFrame | None = None  # one row to measure the latency with


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

    @property
    def output_fault(self) -> str | None:
        """The reason why the predictions are not one value for each row; None if they are."""
        if self.outputs != 1:
            return (
                f"predicts {self.outputs} {'numbers' if self.regressor else 'classes'} for each row, and the "
                "gates compare one: register a version for each output"
            )
        return None


def predict_in_clean_process(jobs: Sequence[PredictJob]) -> list[IsolatedPredictions | VerificationError]:
    """Run the jobs one after the other in a new Python process, and time their rows in turns.

    Returns
    -------
    list
        For each job the predictions, or the error if the model cannot load or predict.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        try:
            request = [_write_request(job, folder / str(index)) for index, job in enumerate(jobs)]
        except (TypeError, ValueError) as error:  # such as a column with several types
            reason = first_line(error, 200)
            return [VerificationError(f"the rows cannot be written as Parquet: {reason}")] * len(jobs)
        (folder / "request.json").write_text(json.dumps(request))
        command = [
            *(sys.executable, "-m", __spec__.name),
            *(str(folder / "request.json"), str(folder / "response.json")),
        ]
        path = (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH"))
        try:
            done = subprocess.run(
                command,
                # The process must not import modules from the caller's folder.
                cwd=scratch,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))},
                capture_output=True,
                text=True,
                timeout=_SECONDS,
            )
        except subprocess.TimeoutExpired:
            return [VerificationError(f"no predictions within {_SECONDS} s in a clean process")] * len(jobs)
        if done.returncode != 0:
            ended = describe_exit(done.returncode)
            # After a signal, the last line of stderr does not explain the end of the process.
            reason = ended if done.returncode < 0 else last_line(done.stderr, ended)[:300]
            return [VerificationError(f"the process that predicts failed: {reason}")] * len(jobs)
        return [
            VerificationError(response["error"]) if "error" in response else IsolatedPredictions(**response)
            for response in json.loads((folder / "response.json").read_text())
        ]


def _write_request(job: PredictJob, scratch: Path) -> dict[str, Any]:
    scratch.mkdir()
    tables = {}
    for name, rows in job.rows.items():
        path = scratch / f"{name}.parquet"
        rows.to_parquet(path, index=False)
        tables[name] = str(path)
    timed = None
    if job.timed_row is not None:
        timed = str(scratch / "timed.parquet")
        job.timed_row.to_parquet(timed, index=False)
    return {
        "folder": str(job.folder.resolve()),
        "tables": tables,
        "timed_row": timed,
        "trusted": job.policy.types,
        "allow_code": job.policy.allow_code,
    }


def _predict(job: dict[str, Any], model: LoadedModel) -> dict[str, Any]:
    predictions, names = {}, {}
    probabilities: dict[str, list[list[float]] | None] = {}
    outputs, fractions = 1, False
    for name, path in job["tables"].items():
        rows = pd.read_parquet(path)
        predicted = model.predict(rows)
        width = math.prod(predicted.shape[1:])
        outputs = max(outputs, width)
        values = class_values(predicted)
        if width == 1:
            kind = "a number" if _is_regressor(model.estimator, fractions) else "a class"
            check_class_values(values, _declared_classes(model), f"the {name} rows", kind)
        fractions |= any(isinstance(value, float) and math.isfinite(value) for value in values)
        predictions[name] = values
        probabilities[name] = None
        regressor = _is_regressor(model.estimator, fractions)
        if outputs == 1 and not regressor:
            named = model.names_of(np.asarray(values)) if model.info.target_names else values
            names[name] = [str(value) for value in named]
            if hasattr(model.estimator, "predict_proba"):
                probabilities[name] = model.predict_proba(rows).tolist()
    return {
        "predictions": predictions,
        "names": names,
        "probabilities": probabilities,
        "classes": list(model.class_names),
        "codes": _codes(model) if model.info.target_names else [],
        "milliseconds": [],
        "outputs": outputs,
        "regressor": _is_regressor(model.estimator, fractions),
    }


def _declared_classes(model: LoadedModel) -> list[Any]:
    """Return the classes that a model with one output declares; empty if it declares none."""
    classes = getattr(model.estimator, "classes_", None)
    if classes is None or (isinstance(classes, list) and len(classes) > 1 and np.ndim(classes[0])):
        return []
    return class_values(np.asarray(classes).ravel())


def _codes(model: LoadedModel) -> list[str]:
    """Return the codes of the classes, in the order of `class_names`."""
    return [str(code) for code in _declared_classes(model) or range(len(model.class_names))]


def _is_regressor(estimator: Any, fractions: bool) -> bool:
    """Return whether a model is a regressor; without scikit-learn's answer, fractions decide."""
    if isinstance(estimator, BaseEstimator):
        return is_regressor(estimator)
    return fractions


def _load_and_predict(job: dict[str, Any]) -> tuple[LoadedModel | None, dict[str, Any]]:
    """Return the model and its predictions, or None and the error if it cannot load or predict."""
    policy = TrustPolicy(types=tuple(job["trusted"]), allow_code=job["allow_code"])
    try:
        model = load_folder(Path(job["folder"]), policy)
        return model, _predict(job, model)
    except RegistryToolsError as error:
        return None, {"error": str(error)}
    except Exception as error:  # noqa: BLE001 - the parent reports any error of a model
        return None, {"error": error_summary(error, 300)}


def _time_in_turns(jobs: Sequence[dict[str, Any]], models: Sequence[LoadedModel | None]) -> list[list[float]]:
    """Return the milliseconds of each job for its row.

    The jobs take turns, so that other processes slow all of them down equally.
    """
    rows = [pd.read_parquet(job["timed_row"]) if job["timed_row"] else None for job in jobs]
    milliseconds: list[list[float]] = [[] for _ in jobs]
    for turn in range(_LATENCY_ROUNDS + 1):
        for row, model, own in zip(rows, models, milliseconds, strict=True):
            if row is None or model is None:
                continue
            began = time.perf_counter()
            model.predict(row)
            if turn:  # the first turn warms up
                own.append((time.perf_counter() - began) * 1000)
    return milliseconds


def main(request: str, response: str) -> int:
    """Run the jobs of a request file and write the response file."""
    gc.disable()  # scanning the imported objects takes a sixth of the time
    _LIMITS.apply()
    jobs = json.loads(Path(request).read_text())
    done = [_load_and_predict(job) for job in jobs]
    if any(job["timed_row"] for job in jobs):
        milliseconds = _time_in_turns(jobs, [model for model, _ in done])
        for (model, given), own in zip(done, milliseconds, strict=True):
            if model is not None:
                given["milliseconds"] = own
    Path(response).write_text(json.dumps([given for _, given in done]))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
