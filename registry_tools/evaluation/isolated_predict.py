"""Versions put to work in a process of their own, which has loaded nothing else before.

    python -m registry_tools.evaluation.isolated_predict REQUEST.json ANSWER.json

A request names folders of models that were verified already; the answer has what each predicts.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from registry_tools.errors import RegistryToolsError, VerificationError, first_line

_LATENCY_ROUNDS = 100
_SECONDS = 600


@dataclass(frozen=True)
class PredictJob:
    """One model and the rows that it is to answer."""

    folder: Path
    rows: Mapping[str, pd.DataFrame]  # by a name of the caller's
    time_first_row_of: str | None = None  # measure the latency on that table
    trusted: tuple[str, ...] = ()
    allow_code: bool = False


@dataclass(frozen=True)
class IsolatedPredictions:
    """What a model answered, by the caller's names of the tables."""

    predictions: Mapping[str, list[Any]]
    names: Mapping[str, list[Any]]  # the classes by name, where the version carries names
    probabilities: Mapping[str, list[list[float]] | None]
    classes: list[str]  # by name, in the order of the probabilities
    milliseconds: list[float]


def predict_in_clean_process(
    jobs: Sequence[PredictJob],
) -> list[IsolatedPredictions | VerificationError]:
    """Answer the jobs, one after the other, in one fresh Python process.

    Returns
    -------
    list
        For each job what the model answered, or why it does not load or answer there.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        try:
            request = [_request(job, folder / str(index)) for index, job in enumerate(jobs)]
        except (TypeError, ValueError) as error:  # a column of more than one type
            reason = first_line(error, 200)
            return [VerificationError(f"the rows are no table: {reason}")] * len(jobs)
        (folder / "request.json").write_text(json.dumps(request))
        command = [
            *(sys.executable, "-m", __spec__.name),
            *(str(folder / "request.json"), str(folder / "answer.json")),
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
            return [VerificationError(f"no answer within {_SECONDS} s in a clean process")] * len(
                jobs
            )
        if done.returncode != 0:
            said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            return [VerificationError(f"a clean process failed: {said[:300]}")] * len(jobs)
        return [
            VerificationError(answer["error"])
            if "error" in answer
            else IsolatedPredictions(**answer)
            for answer in json.loads((folder / "answer.json").read_text())
        ]


def _request(job: PredictJob, scratch: Path) -> dict[str, Any]:
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
        "trusted": list(job.trusted),
        "allow_code": job.allow_code,
    }


def _answer(job: dict[str, Any]) -> dict[str, Any]:
    from registry_tools.models.formats import TrustPolicy, load_folder

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


def _answer_or_error(job: dict[str, Any]) -> dict[str, Any]:
    try:
        return _answer(job)
    except RegistryToolsError as error:
        return {"error": str(error)}
    except Exception as error:  # noqa: BLE001 - whatever a model does is told to the parent
        return {"error": " ".join(f"{type(error).__name__}: {error}".split())[:300]}


def main(request: str, answer: str) -> int:
    """Answer a request file."""
    gc.disable()  # what is imported stays; looking through it takes a sixth of the time
    jobs = json.loads(Path(request).read_text())
    Path(answer).write_text(json.dumps([_answer_or_error(job) for job in jobs]))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
