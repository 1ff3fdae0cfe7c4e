"""Predict with versions in a separate process, which has loaded nothing else before.

    python -m registry_tools.evaluation.isolated_predict REQUEST.json RESPONSE.json

The request names folders of models that were verified already; the response has the predictions.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from registry_tools.errors import RegistryToolsError, VerificationError, error_summary, first_line, last_line
from registry_tools.models.trust_policy import TrustPolicy

_LATENCY_ROUNDS = 100
_SECONDS = 600


@dataclass(frozen=True)
class PredictJob:
    """One model and the rows to predict."""

    folder: Path
    rows: Mapping[str, pd.DataFrame]  # by the caller's name of the table
    policy: TrustPolicy = field(default_factory=TrustPolicy)
    time_first_row_of: str | None = None  # measure the latency on that table


@dataclass(frozen=True)
class IsolatedPredictions:
    """The predictions of a model, by the caller's names of the tables."""

    predictions: Mapping[str, list[Any]]
    names: Mapping[str, list[Any]]  # the classes by name, where the version carries names
    probabilities: Mapping[str, list[list[float]] | None]
    classes: list[str]  # by name, in the order of the probabilities
    milliseconds: list[float]


def predict_in_clean_process(jobs: Sequence[PredictJob]) -> list[IsolatedPredictions | VerificationError]:
    """Run the jobs, one after the other, in one fresh Python process.

    Returns
    -------
    list
        For each job the predictions, or why the model does not load or predict there.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        try:
            request = [_write_request(job, folder / str(index)) for index, job in enumerate(jobs)]
        except (TypeError, ValueError) as error:  # a column of more than one type
            reason = first_line(error, 200)
            return [VerificationError(f"the rows are no table: {reason}")] * len(jobs)
        (folder / "request.json").write_text(json.dumps(request))
        command = [
            *(sys.executable, "-m", __spec__.name),
            *(str(folder / "request.json"), str(folder / "response.json")),
        ]
        path = (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH"))
        try:
            done = subprocess.run(
                command,
                # Whatever lies in the caller's folder is not imported.
                cwd=scratch,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))},
                capture_output=True,
                text=True,
                timeout=_SECONDS,
            )
        except subprocess.TimeoutExpired:
            return [VerificationError(f"no predictions within {_SECONDS} s in a clean process")] * len(jobs)
        if done.returncode != 0:
            reason = last_line(done.stderr, f"exit code {done.returncode}")
            return [VerificationError(f"a clean process failed: {reason[:300]}")] * len(jobs)
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
    return {
        "folder": str(job.folder.resolve()),
        "tables": tables,
        "time": job.time_first_row_of,
        "trusted": job.policy.types,
        "allow_code": job.policy.allow_code,
    }


def _predict(job: dict[str, Any]) -> dict[str, Any]:
    from registry_tools.models.loaded_model import load_folder

    policy = TrustPolicy(types=tuple(job["trusted"]), allow_code=job["allow_code"])
    model = load_folder(Path(job["folder"]), policy)
    predictions, names, probabilities = {}, {}, {}
    for name, path in job["tables"].items():
        rows = pd.read_parquet(path)
        predicted = model.predict(rows)
        predictions[name] = predicted.tolist()
        named = model.names_of(predicted) if model.info.target_names else predicted
        names[name] = [str(value) for value in named.tolist()]
        has_probabilities = hasattr(model.estimator, "predict_proba")
        probabilities[name] = model.predict_proba(rows).tolist() if has_probabilities else None
    milliseconds = []
    if job["time"]:
        row = pd.read_parquet(job["tables"][job["time"]]).head(1)
        for _ in range(_LATENCY_ROUNDS):
            began = time.perf_counter()
            model.predict(row)
            milliseconds.append((time.perf_counter() - began) * 1000)
    return {
        "predictions": predictions,
        "names": names,
        "probabilities": probabilities,
        "classes": list(model.class_names),
        "milliseconds": milliseconds,
    }


def _predict_or_error(job: dict[str, Any]) -> dict[str, Any]:
    try:
        return _predict(job)
    except RegistryToolsError as error:
        return {"error": str(error)}
    except Exception as error:  # noqa: BLE001 - whatever a model raises goes to the parent
        return {"error": error_summary(error, 300)}


def main(request: str, response: str) -> int:
    """Run the jobs of a request file and write the response file."""
    gc.disable()  # what is imported stays; collecting it takes a sixth of the time
    jobs = json.loads(Path(request).read_text())
    Path(response).write_text(json.dumps([_predict_or_error(job) for job in jobs]))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
