"""`registry-tools score` against code that you would write yourself, and against `mlflow models predict`.

    python benchmarks/score.py [--rows 5000000] [--rounds 3] [--only 1,4]

1. Two Parquet files to a folder of Parquet, on 2 processes, against `read_parquet`, `predict`, `to_parquet`
   for each file, also on 2 processes, and against `estimator.predict` on the same rows in memory. The
   processes of both are warm. Compared is what `score` reports: from the first row read to the output in its
   place. One file as the output, and the whole command, are printed beside it.
2. Seconds a row of whole commands, with Python's start in both: `mlflow models predict -t csv`,
   which reads no Parquet, on 200,000 rows of CSV, against `score` on all rows of Parquet. Without a
   target stand beside it: both on the same CSV, and `score` on a CSV of all rows.
3. The peak memory of the command and its workers, ten times the rows against the rows.
4. The whole command on 1,000 rows against the imports that it needs.

A and B in turn, medians of ratios. The rows are Iris with noise, rounded to two places as a table has them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
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
LEAST_OF_PREDICT, LEAST_OF_FILES, LEAST_OF_MLFLOW = 0.25, 2.0, 20.0
MOST_MEMORY, MOST_OF_IMPORTS = 1.2, 1.3
MLFLOW_ROWS = 200_000
IMPORTS = "import mlflow, skops.io, sklearn.linear_model, pyarrow"
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


def make_rows(folder: Path, rows: int) -> None:
    """Write a table of rows, the same in two files, one with ten times as many, and one with 1,000."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from sklearn.datasets import load_iris

    features = load_iris(as_frame=True).data
    rng = np.random.default_rng(7)
    values = features.to_numpy()[rng.integers(0, len(features), rows)]
    noisy = (values + rng.normal(0, 0.1, values.shape)).round(2)
    table = pa.table({name: noisy[:, place] for place, name in enumerate(features.columns)})
    pq.write_table(table, folder / "rows.parquet")
    pq.write_table(table.slice(0, 1000), folder / "few.parquet")
    (folder / "two").mkdir()
    for part in (0, 1):
        pq.write_table(table.slice(part * (rows // 2), rows // 2), folder / "two" / f"{part}.parquet")
    with pq.ParquetWriter(folder / "ten.parquet", table.schema) as writer:
        for _ in range(10):
            writer.write_table(table)


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


def by_hand(folder: str, part: int, pipe: Connection) -> None:
    """Hold the rows of one file in memory; predict them, or score the file, whenever asked."""
    os.chdir(folder)
    import numpy as np
    import pandas as pd

    from registry_tools import load_model

    model = load_model("iris@staging", tracking_uri=f"sqlite:///{folder}/mlflow.db")
    names = np.array(model.info.target_names)
    frame = pd.read_parquet(f"two/{part}.parquet")
    model.estimator.predict(frame)
    pipe.send(len(frame))
    while (wanted := pipe.recv()) is not None:
        if wanted == "predict":
            model.estimator.predict(frame)
        else:
            table = pd.read_parquet(f"two/{part}.parquet")
            predicted = model.estimator.predict(table)
            table["prediction"], table["prediction_name"] = predicted, names[predicted]
            table["model_version"] = np.int32(model.info.version)
            table.to_parquet(f"by-hand-{part}.parquet", index=False)
        pipe.send(True)


class TwoProcesses:
    """Two warm processes that run `by_hand`."""

    def __init__(self, folder: Path) -> None:
        os.environ.update(_ONE_THREAD)
        context = get_context("spawn")
        self.pipes = []
        for part in (0, 1):
            ours, theirs = context.Pipe()
            context.Process(target=by_hand, args=(str(folder), part, theirs), daemon=True).start()
            self.pipes.append(ours)
        self.rows = sum(pipe.recv() for pipe in self.pipes)
        for name in _ONE_THREAD:
            del os.environ[name]

    def seconds(self, wanted: str) -> float:
        """Let both do it, and return how long that takes."""
        began = time.perf_counter()
        for pipe in self.pipes:
            pipe.send(wanted)
        for pipe in self.pipes:
            pipe.recv()
        return time.perf_counter() - began

    def close(self) -> None:
        """End them."""
        for pipe in self.pipes:
            pipe.send(None)


def against_predict(folder: Path, rounds: int) -> bool:
    """Measure rows a second, in turn with code written by hand."""
    processes = TwoProcesses(folder)
    seconds: dict[str, list[float]] = {}
    for turn in range(2 * rounds + 2):  # they are short
        taken = {
            "predict in memory, 2 processes": statistics.median(
                processes.seconds("predict") for _ in range(3)
            ),
            "read_parquet, predict, to_parquet, 2 processes": processes.seconds("files"),
        }
        shutil.rmtree(folder / "folder", ignore_errors=True)
        summary, whole = score(folder, folder / "two", "folder/")
        taken |= {"score to a folder, 2 workers": summary["seconds"], "  the whole command": whole}
        assert summary["rows"] == processes.rows
        taken["score to one file, 2 workers"] = score(folder, folder / "two", "out.parquet")[0]["seconds"]
        if turn:  # the first one fills the caches
            for title, each in taken.items():
                seconds.setdefault(title, []).append(each)
    processes.close()
    for title, each in seconds.items():
        row(title, statistics.median(each), processes.rows)
    memory, files, ours, _, one = seconds.values()
    print(f"{'rows/s, one file to read_parquet …':<52} {_ratio(files, one):8.2f}")
    print(f"{'rows/s, one file to predict':<52} {_ratio(memory, one):8.2f}")
    of_files, of_predict = _ratio(files, ours), _ratio(memory, ours)
    met = verdict("rows/s, folder to read_parquet …", of_files, f"at least {LEAST_OF_FILES:g}",
                  of_files >= LEAST_OF_FILES)  # fmt: skip
    return verdict("rows/s, folder to predict", of_predict, f"at least {LEAST_OF_PREDICT}",
                   of_predict >= LEAST_OF_PREDICT) and met  # fmt: skip


def _ratio(above: list[float], below: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def against_imports(folder: Path, rounds: int) -> bool:
    """Measure the whole command on few rows, in turn with its imports."""
    ours, imports = [], []
    for _ in range(2 * rounds + 1):
        imports.append(run(folder, BIN / "python", "-c", IMPORTS)[1])
        ours.append(score(folder, folder / "few.parquet", "out.parquet")[1])
    print(f"{IMPORTS[:51]:<52} {statistics.median(imports):8.2f} s")
    print(f"{'score, 1,000 rows, the whole command':<52} {statistics.median(ours):8.2f} s")
    ratio = _ratio(ours, imports)
    return verdict("seconds, score to imports", ratio, f"at most {MOST_OF_IMPORTS}",
                   ratio <= MOST_OF_IMPORTS)  # fmt: skip


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
        ratio = _ratio(theirs, each)
        print(f"{title:<52} {statistics.median(each) * 1e6:8.2f} µs a row, ratio {ratio:6.2f}")
    ours = seconds["score, Parquet"]
    ratio = _ratio(theirs, ours)
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
    parser.add_argument("--only", default="1,2,3,4", help="the numbers of what is measured")
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        run(folder, BIN / "python", "-m", "pipeline", "train", "--plots", "false")
        make_rows(folder, options.rows)
        measures = {
            "1": lambda: against_predict(folder, options.rounds),
            "2": lambda: against_mlflow(folder, folder / "rows.parquet", options.rounds),
            "3": lambda: memory(folder, folder / "rows.parquet", folder / "ten.parquet"),
            "4": lambda: against_imports(folder, options.rounds),
        }
        met = [measures[number]() for number in options.only.split(",")]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
