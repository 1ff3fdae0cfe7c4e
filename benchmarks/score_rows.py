"""Compare every row that `registry-tools score` writes with the prediction of `load_model`.

    python benchmarks/score_rows.py [--rows 10000000] [--workers 2]

A table of 20 columns, six of them text, is scored to a folder and to one file. Both results must have the
rows of the input in their order, be equal, and have the names that `load_model().predict_names` returns.
Table, results and rows of a comparison are read in chunks, so that the memory does not grow with the rows.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pairs import machine

from registry_tools import load_model

ROOT = Path(__file__).parents[1]
NUMBERS, TEXTS, CHUNK = 14, 6, 250_000
TRAINED = 2000  # rows
WORDS = np.array(["red", "green", "blue, dark", 'a "quoted" one', "ä"])


def make_rows(rows: int, seed: int) -> pd.DataFrame:
    """Return random numbers and words."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({f"n{place}": rng.normal(size=rows).round(3) for place in range(NUMBERS)})
    for place in range(TEXTS):
        table[f"t{place}"] = WORDS[rng.integers(0, len(WORDS), rows)]
    return table


def run(folder: Path, *command: str | Path) -> str:
    """Run a command with the Python of this process, and return what it prints."""
    variables = {"PYTHONPATH": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "true"}
    variables["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)],
        cwd=folder,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{command[0]}: exit {done.returncode}")
    return done.stdout


def train(folder: Path) -> None:
    """Register a version that takes all columns."""
    table = make_rows(TRAINED, 0)
    kinds = np.where(table["n0"] + (table["t0"] == "red") > 0.5, "high", "low")
    table.assign(kind=kinds).to_csv(folder / "train.csv", index=False)
    options = ("--data", folder / "train.csv", "--target", "kind", "--name", "wide", "--plots", "false")
    run(folder, "pipeline", "train", *options)


def chunks(path: Path) -> Iterator[pa.Table]:
    """Yield the rows of a file, or of a folder in the order of its names, in tables of `CHUNK` rows."""
    waiting: list[pa.RecordBatch] = []
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        for batch in pq.ParquetFile(file).iter_batches(CHUNK):
            waiting.append(batch)
            while sum(each.num_rows for each in waiting) >= CHUNK:
                table = pa.Table.from_batches(waiting)
                yield table.slice(0, CHUNK)
                waiting = table.slice(CHUNK).to_batches()
    if sum(each.num_rows for each in waiting):
        yield pa.Table.from_batches(waiting)


def compare(folder: Path, given: Path) -> int:
    """Return how many rows were compared; end with an error at the first chunk that differs."""
    model = load_model("wide/1", tracking_uri=f"sqlite:///{folder}/mlflow.db")
    compared = 0
    for rows, one, part in zip(
        chunks(given), chunks(folder / "one.parquet"), chunks(folder / "folder"), strict=True
    ):
        one, part = (table.to_pandas() for table in (one, part))
        frame = rows.to_pandas()
        pd.testing.assert_frame_equal(one, part)
        pd.testing.assert_frame_equal(one[frame.columns], frame)
        wanted = model.predict_names(frame)
        wrong = int((one["prediction_name"].to_numpy(object) != wanted).sum())
        if wrong or set(one["model_version"]) != {1}:
            raise SystemExit(f"rows {compared} to {compared + len(frame)}: {wrong} names differ")
        compared += len(frame)
    return compared


def main() -> None:
    """Make the table, score it twice, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--workers", default="2")
    options = parser.parse_args()
    print(machine())
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    with tempfile.TemporaryDirectory(prefix="score-rows-") as name:
        folder = Path(name)
        train(folder)
        given = folder / "rows.parquet"
        schema = pa.Schema.from_pandas(make_rows(1, 0))
        with pq.ParquetWriter(given, schema) as writer:
            for seed, begin in enumerate(range(0, options.rows, CHUNK), 1):
                table = make_rows(min(CHUNK, options.rows - begin), seed)
                writer.write_table(pa.Table.from_pandas(table, schema))
        for output in ("folder/", "one.parquet"):
            command = ("score", "wide/1", "--input", given, "--output", output, "--workers", options.workers)
            summary = json.loads(run(folder, "registry_tools", *command, "--json"))
            print(f"{summary['rows']:,} rows to {output} in {summary['seconds']:.1f} s")
        began = time.perf_counter()
        compared = compare(folder, given)
        if compared != options.rows:
            raise SystemExit(f"{compared:,} rows were compared, of {options.rows:,}")
        print(f"{compared:,} rows are equal, compared in {time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main()
