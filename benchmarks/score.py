"""`registry-tools score` against the estimator alone, and against `mlflow models predict`.

    python benchmarks/score.py [--rows 5000000] [--rounds 3] [--no-memory]

1. Rows of Parquet through the command, to Parquet, on 2 workers, against `estimator.predict` on the
   same rows, as the frame it was trained on and already in memory, on 2 warm processes. Compared is
   what `score` reports, from the first row read to the output in its place; the whole command, with
   Python's start and resolving the reference, stands beside it.
2. Seconds a row of whole commands, with Python's start in both: `mlflow models predict -t csv`,
   which reads no Parquet, on 200,000 rows of CSV, against `score` on all rows of Parquet. Without a
   target stand beside it: both on the same CSV, and `score` on a CSV of all rows.
3. The peak memory of the command and its workers, ten times the rows against the rows.

A and B in turn, medians. The rows are Iris with noise, rounded to two places as a table has them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pairs import machine

ROOT = Path(__file__).parents[1]
BIN = Path(sys.prefix, "bin")
LEAST_OF_PREDICT, LEAST_OF_MLFLOW, MOST_MEMORY = 0.6, 20.0, 1.2
MLFLOW_ROWS = 200_000
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


def make_rows(folder: Path, rows: int) -> tuple[Path, Path]:
    """Write a table of rows, and one with ten times as many, row groups repeated."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from sklearn.datasets import load_iris

    features = load_iris(as_frame=True).data
    rng = np.random.default_rng(7)
    values = features.to_numpy()[rng.integers(0, len(features), rows)]
    noisy = (values + rng.normal(0, 0.1, values.shape)).round(2)
    table = pa.table({name: noisy[:, place] for place, name in enumerate(features.columns)})
    one, ten = folder / "rows.parquet", folder / "ten.parquet"
    pq.write_table(table, one)
    with pq.ParquetWriter(ten, table.schema) as writer:
        for _ in range(10):
            writer.write_table(table)
    return one, ten


def run(folder: Path, *command: str | Path) -> tuple[str, float]:
    """Run a command and return what it prints and its seconds."""
    began = time.perf_counter()
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=environment | {"MLFLOW_DISABLE_TELEMETRY": "true"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    if done.returncode != 0:
        raise SystemExit(f"{command[0]}: exit {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout, time.perf_counter() - began


def score(folder: Path, given: Path, output: str, *options: str) -> tuple[dict[str, Any], float]:
    """Run `score` and return its summary and the seconds of the whole command."""
    printed, seconds = run(
        folder,
        *(BIN / "registry-tools", "score", "iris@staging", "--input", given),
        *("--output", output, "--workers", "2", "--json", *options),
    )
    return json.loads(printed), seconds


def predictor(folder: str, rows: str, part: int, pipe: Connection) -> None:
    """Hold half of the rows in memory, and predict them whenever asked."""
    os.chdir(folder)
    import pandas as pd

    from registry_tools import load_model

    estimator = load_model("iris@staging", tracking_uri=f"sqlite:///{folder}/mlflow.db").estimator
    frame = pd.read_parquet(rows)
    half = len(frame) // 2
    frame = (frame.iloc[:half] if part == 0 else frame.iloc[half:]).copy()
    estimator.predict(frame)
    pipe.send(len(frame))
    while pipe.recv():
        pipe.send(int(estimator.predict(frame).sum()))


class Predictors:
    """Two warm processes that have the rows in memory."""

    def __init__(self, folder: Path, rows: Path) -> None:
        os.environ.update(_ONE_THREAD)
        context = get_context("spawn")
        self.pipes = []
        for part in (0, 1):
            ours, theirs = context.Pipe()
            context.Process(
                target=predictor, args=(str(folder), str(rows), part, theirs), daemon=True
            ).start()
            self.pipes.append(ours)
        self.rows = sum(pipe.recv() for pipe in self.pipes)
        for name in _ONE_THREAD:
            del os.environ[name]

    def seconds(self) -> float:
        """Let both predict, and return how long that takes."""
        began = time.perf_counter()
        for pipe in self.pipes:
            pipe.send(True)
        for pipe in self.pipes:
            pipe.recv()
        return time.perf_counter() - began

    def close(self) -> None:
        """End them."""
        for pipe in self.pipes:
            pipe.send(False)


def against_predict(folder: Path, rows: Path, rounds: int) -> bool:
    """Measure rows a second, in turn with the estimator alone."""
    predictors = Predictors(folder, rows)
    score(folder, rows, "out.parquet")  # not counted: caches of the disk and of Python
    ours, whole, alone = [], [], []
    for _ in range(2 * rounds + 1):  # they are short
        alone.append(statistics.median(predictors.seconds() for _ in range(3)))
        summary, seconds = score(folder, rows, "out.parquet")
        assert summary["rows"] == predictors.rows
        ours.append(summary["seconds"])
        whole.append(seconds)
    predictors.close()
    count = predictors.rows
    ratio = statistics.median(a / b for a, b in zip(alone, ours, strict=True))
    row(f"predict in memory, 2 processes, {count:,} rows", statistics.median(alone), count)
    row("score, Parquet to Parquet, 2 workers", statistics.median(ours), count)
    row("  the whole command", statistics.median(whole), count)
    return verdict("rows/s, score to predict", ratio, f"at least {LEAST_OF_PREDICT}",
                   ratio >= LEAST_OF_PREDICT)  # fmt: skip


def row(title: str, seconds: float, rows: int) -> None:
    print(f"{title:<52} {seconds:8.2f} s {rows / seconds:14,.0f} rows/s")


def verdict(title: str, ratio: float, wanted: str, met: bool) -> bool:
    print(f"{title:<52} {ratio:8.2f}   wanted {wanted}: {'met' if met else 'MISSED'}\n")
    return met


def against_mlflow(folder: Path, rows: Path, rounds: int) -> bool:
    """Measure whole commands, in turn with MLflow's own."""
    import pandas as pd

    table = pd.read_parquet(rows)
    table.to_csv(folder / "all.csv", index=False)
    table.head(MLFLOW_ROWS).to_csv(folder / "few.csv", index=False)
    seconds: dict[str, list[float]] = {}
    for _ in range(rounds):
        _, taken = run(
            folder,
            *(BIN / "mlflow", "models", "predict", "-m", "models:/iris@staging"),
            *("-i", "few.csv", "-o", "few.json", "-t", "csv", "--env-manager", "local"),
        )
        seconds.setdefault("mlflow models predict, CSV", []).append(taken / MLFLOW_ROWS)
        for title, given, output, count in (
            ("score, Parquet", rows, "out.parquet", len(table)),
            ("score, CSV to CSV", folder / "all.csv", "out.csv", len(table)),
            ("score, the same CSV", folder / "few.csv", "few-out.csv", MLFLOW_ROWS),
        ):
            seconds.setdefault(title, []).append(score(folder, given, output)[1] / count)
    theirs = seconds["mlflow models predict, CSV"]
    for title, each in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(theirs, each, strict=True))
        print(f"{title:<52} {statistics.median(each) * 1e6:8.2f} µs a row, ratio {ratio:6.2f}")
    ours = seconds["score, Parquet"]
    ratio = statistics.median(a / b for a, b in zip(theirs, ours, strict=True))
    return verdict("seconds a row, mlflow to score", ratio, f"at least {LEAST_OF_MLFLOW:g}",
                   ratio >= LEAST_OF_MLFLOW)  # fmt: skip


def peak_memory(folder: Path, rows: Path) -> int:
    """Return the largest sum of the proportional set sizes of `score` and its workers, in bytes."""
    process = subprocess.Popen(
        [
            *(str(BIN / "registry-tools"), "score", "iris@staging", "--input", str(rows)),
            *("--output", "out.parquet", "--workers", "2", "--json"),
        ],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
    )
    ended = threading.Event()
    threading.Thread(target=lambda: (process.wait(timeout=900), ended.set()), daemon=True).start()
    peak = 0
    while not ended.wait(0.1):
        peak = max(peak, sum(_bytes_of(pid) for pid in _family(process.pid)))
    if process.returncode != 0:
        raise SystemExit(f"score: exit {process.returncode}")
    return peak


def _family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *map(int, children)]


def _bytes_of(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has ended
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))


def memory(folder: Path, one: Path, ten: Path) -> bool:
    """Compare the peak at ten times the rows with that at the rows."""
    small, large = peak_memory(folder, one), peak_memory(folder, ten)
    print(f"{'peak memory, the rows':<52} {small / 2**20:8.0f} MiB")
    print(f"{'peak memory, ten times the rows':<52} {large / 2**20:8.0f} MiB")
    ratio = large / small
    return verdict("peak memory, ten times to once", ratio, f"at most {MOST_MEMORY}",
                   ratio <= MOST_MEMORY)  # fmt: skip


def main() -> int:
    """Measure, print, and return 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-memory", action="store_true", help="leave out the third")
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        run(folder, BIN / "python", "-m", "pipeline", "train", "--plots", "false")
        one, ten = make_rows(folder, options.rows)
        met = [against_predict(folder, one, options.rounds)]
        met.append(against_mlflow(folder, one, options.rounds))
        if not options.no_memory:
            met.append(memory(folder, one, ten))
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
