"""A sweep on two cores against one, and what tracking and Optuna cost a trial.

    python benchmarks/sweep.py [ROUNDS]

1. Whole commands, in turn: 40 trials of gradient boosting on 24,000 rows, two jobs against one,
   from the beginning of the first trial to the end of the last.
2. 200 trials of logistic regression on Iris, one job, `random` and `tpe`: the time of each after the first
   40, less that of a loop which only evaluates trials. It is divided by the time of the three calls of
   MLflow that a trial needs, when nothing else is done: open, log in one batch, end.
3. 1,000 such trials with either sampler: the median time of the last 200 against that of the first 200.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from mlflow.entities import Metric, Param, RunTag
from pairs import machine
from sklearn.datasets import make_classification

from pipeline.data.load import load_dataset
from pipeline.data.split import split_rows
from pipeline.params.definitions import SweepParams
from pipeline.sweep.study import SweepStudy
from pipeline.sweep.sweep import sweep
from pipeline.sweep.trials import evaluate_trial

FEW, MANY = 40, 200


def command(table: Path, folder: Path, n_jobs: int) -> tuple[float, float]:
    """Return the seconds of a whole sweep in a store of its own, and of its trials alone."""
    store = folder / f"{time.monotonic_ns()}.db"
    began = time.perf_counter()
    subprocess.run(
        [
            *(sys.executable, "-m", "pipeline", "sweep", "--data", str(table), "--target", "y"),
            *("--name", "made", "--model", "hist_gradient_boosting", "--max-iter", "150"),
            *("--n-trials", "40", "--n-jobs", str(n_jobs), "--plots", "false"),
        ],
        cwd=folder,
        env=os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{store}"},
        check=True,
        capture_output=True,
    )
    whole = time.perf_counter() - began
    question = (
        "SELECT max(end_time) - min(start_time) FROM runs JOIN tags USING (run_uuid) "
        "WHERE key = 'kind' AND tags.value = 'trial'"
    )
    with contextlib.closing(sqlite3.connect(store)) as database:
        return whole, database.execute(question).fetchone()[0] / 1000


def tracked(params: SweepParams, folder: Path) -> list[float]:
    """Return when each trial of a sweep ended, in seconds since its beginning."""
    mlflow.set_tracking_uri(f"sqlite:///{folder}/{time.monotonic_ns()}.db")
    ends: list[float] = []
    began = time.perf_counter()
    sweep(params, lambda *_: ends.append(time.perf_counter() - began))
    return ends


def bare(params: SweepParams) -> float:
    """Return the seconds of a loop that evaluates as many trials, tracked nowhere."""
    dataset = load_dataset(params)
    training = dataset.take(split_rows(dataset, params)[0])
    study = SweepStudy(params, [params.model])
    drawn = [trial for trial in map(study.ask, range(params.n_trials)) if trial is not None]
    began = time.perf_counter()
    for trial in drawn:
        evaluate_trial(trial, dataset.features, training)
    return time.perf_counter() - began


def calls_alone(folder: Path) -> float:
    """Return the seconds of MLflow's calls for one trial, of many in a row."""
    client = mlflow.MlflowClient(f"sqlite:///{folder}/{time.monotonic_ns()}.db")
    experiment = client.create_experiment("alone")
    params = [Param(name, "1.0") for name in ("model", "C", "class_weight")]
    names = ("cv/accuracy_mean", "cv/accuracy_std", "seconds")
    arguments = [RunTag("model_params", '{"C": 1.0, "class_weight": null}')]
    began = 0.0
    for trial in range(MANY + FEW):
        if trial == FEW:
            began = time.perf_counter()
        tags = {"trial": str(trial), "kind": "trial", "mlflow.parentRunId": "0" * 32, "mlflow.runName": "a"}
        run_id = client.create_run(experiment, tags=tags).info.run_id
        metrics = [Metric(name, 0.5, 0, 0) for name in names]
        client.log_batch(run_id, metrics=metrics, params=params, tags=arguments)
        client.set_terminated(run_id)
    return (time.perf_counter() - began) / MANY


def quick(n_trials: int, sampler: str) -> SweepParams:
    return SweepParams(
        model="logistic_regression", n_trials=n_trials, max_iter=50, plots=False, sampler=sampler
    )


def main(rounds: int) -> int:
    """Measure, print, and return 1 if a target is missed."""
    print(machine())
    missed = 0

    def say(what: str, value: float, unit: str, wanted: float, at_least: bool) -> None:
        nonlocal missed
        met = value >= wanted if at_least else value <= wanted
        missed += not met
        bound = f"at {'least' if at_least else 'most'} {wanted:g}"
        print(f"{what:<58} {value:8.2f}{unit:<4} {bound}: {'met' if met else 'MISSED'}")

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        os.chdir(folder)
        features, labels = make_classification(24_000, 20, n_informative=8, random_state=0)
        table = pd.DataFrame(features).rename(columns=str).assign(y=labels)
        table.to_parquet(folder / "made.parquet")
        ratios = []
        for _ in range(rounds):
            two, one = (command(folder / "made.parquet", folder, n) for n in (2, 1))
            print(f"whole commands: {one[0]:.1f} s with one job, {two[0]:.1f} s with two")
            print(f"their trials:   {one[1]:.1f} s with one job, {two[1]:.1f} s with two")
            ratios.append(one[1] / two[1])
        say("40 trials, two jobs against one", statistics.median(ratios), "x", 1.7, True)

        for sampler in ("random", "tpe"):
            costs, calls = [], []
            for _ in range(rounds):
                ends = tracked(quick(MANY, sampler), folder)
                # Trials without feedback are alike for both samplers.
                alone = bare(quick(MANY, "random")) / MANY
                costs.append((ends[-1] - ends[FEW]) / (MANY - 1 - FEW) - alone)
                calls.append(calls_alone(folder))
            print(
                f"{sampler}: {1000 * statistics.median(calls):.2f} ms for the calls of MLflow by themselves"
            )
            ratio = statistics.median(cost / call for cost, call in zip(costs, calls, strict=True))
            say(f"{sampler}: tracking and Optuna against those calls", ratio, "x", 1.5, False)
            steps = np.diff(tracked(quick(1000, sampler), folder))
            growth = float(np.median(steps[-200:]) / np.median(steps[:200]))
            say(f"{sampler}: a trial after 800 against one of the first 200", growth, "x", 1.2, False)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 3))
