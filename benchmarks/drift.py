"""Measure the false alarms, the power and the cost of drift monitoring.

    python benchmarks/drift.py [--windows 1000] [--peer PYTHON] [--no-cost]

1. False alarms: windows of 200 rows from the distribution of the baseline. One data set is like Iris,
   drawn from normal distributions fitted to each class and rounded in the same way. The other has 30
   columns, half of them correlated, two of them text.
2. Power: one feature shifted by a standard deviation, 200 rows; and the correlation of two features
   changed from 0.9 to 0 with the same marginal distributions, 500 rows.
3. Evidently on the same windows, if PYTHON has it (benchmarks/drift_peer.txt), by three rules: any column
   drifts at the default threshold, any column drifts at a Bonferroni threshold, half of the columns drift.
4. Cost: the whole command on a prediction log of 30 columns, with 1,000,000 rows and with 100,000 rows.

Each window is drawn independently. Ten windows share one baseline.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pairs import machine
from sklearn.datasets import load_iris

from pipeline.monitoring import analysis
from pipeline.monitoring.data.window import CurrentWindow
from pipeline.training import baseline
from registry_tools.stats.metric import Outcomes

ALPHA = 0.01
MOST_ALARMS, LEAST_SHIFT, LEAST_CORRELATION = 0.05, 0.95, 0.8
MOST_SECONDS, MOST_BYTES = 30.0, 1 << 30
_ANEW = 10  # windows that share one baseline
Draw = Callable[[np.random.Generator, int], pd.DataFrame]


def iris(random: np.random.Generator, rows: int) -> pd.DataFrame:
    """Draw rows like those of Iris, with the class in the column `answer`."""
    table = load_iris(as_frame=True)
    kinds = random.integers(0, 3, rows)
    values = np.empty((rows, 4))
    for kind in range(3):
        of_kind = table.data[table.target == kind].to_numpy()
        drawn = random.multivariate_normal(of_kind.mean(0), np.cov(of_kind.T), int((kinds == kind).sum()))
        values[kinds == kind] = drawn.round(1)
    return pd.DataFrame(values, columns=table.data.columns).assign(answer=table.target_names[kinds])


def wide(random: np.random.Generator, rows: int, correlation: float = 0.9) -> pd.DataFrame:
    """Draw rows with 28 numeric columns, some skewed, half of them correlated, and two text columns."""
    values = random.normal(size=(rows, 28))
    values[:, 1] = correlation * values[:, 0] + np.sqrt(1 - correlation**2) * values[:, 1]
    values[:, 2:14] = 0.6 * random.normal(size=(rows, 1)) + 0.8 * values[:, 2:14]
    values[:, 20:] = np.exp(values[:, 20:])
    table = pd.DataFrame(values, columns=[f"x{place}" for place in range(28)])
    table["city"] = random.choice(["a", "b", "c", "d"], rows, p=[0.5, 0.3, 0.15, 0.05])
    table["plan"] = random.choice(["free", "paid"], rows)
    answer = np.where(values[:, 2] + values[:, 3] > 0, "stays", "leaves")
    return table.assign(answer=answer)


def baseline_of(table: pd.DataFrame) -> baseline.TrainingBaseline:
    """Return a baseline: four fifths of the rows are training rows, the others are the holdout."""
    cut = len(table) * 4 // 5
    answers = table["answer"].to_numpy(object)
    holdout = Outcomes(answers[cut:], answers[cut:])
    return baseline.make_baseline(table.drop(columns="answer")[:cut], "y", holdout)


def is_found(of: baseline.TrainingBaseline, table: pd.DataFrame) -> bool:
    """Check whether the monitor reports drift."""
    rows = pa.Table.from_pandas(table.drop(columns="answer"), preserve_index=False)
    answers = pa.chunked_array([pa.array(table["answer"], pa.string())])
    return analysis.analyse_window(1, of, CurrentWindow(rows, answers, None), None, 20, ALPHA).has_drift


def shifted(table: pd.DataFrame, column: str, by: float) -> pd.DataFrame:
    return table.assign(**{column: table[column] + by})


def cases(windows: int) -> dict[str, tuple[list[tuple[pd.DataFrame, list[pd.DataFrame]]], float, bool]]:
    """Return for each case its baselines with windows, the target share, and whether it is a minimum."""
    few = max(windows // 5, 1)
    width = float(np.std(iris(np.random.default_rng(0), 10_000)["petal width (cm)"]))
    loose = lambda random, rows: wide(random, rows, 0.0)  # noqa: E731

    def drawn(seed: int, count: int, then: Draw, trained: int, now: Draw, rows: int):  # type: ignore[no-untyped-def]
        random = np.random.default_rng(seed)
        return [
            (then(random, trained), [now(random, rows) for _ in range(min(_ANEW, count - start))])
            for start in range(0, count, _ANEW)
        ]

    def moved(draw: Draw, column: str, by: float) -> Draw:
        return lambda random, rows: shifted(draw(random, rows), column, by)

    return {
        "false alarms, Iris, 200 rows":
            (drawn(1, windows, iris, 150, iris, 200), MOST_ALARMS, False),
        "false alarms, 30 columns, 200 rows":
            (drawn(2, windows, wide, 2500, wide, 200), MOST_ALARMS, False),
        "a shift of one sd, Iris, 200 rows":
            (drawn(3, few, iris, 150, moved(iris, "petal width (cm)", width), 200),
             LEAST_SHIFT, True),
        "a shift of one sd, 30 columns, 200 rows":
            (drawn(4, few, wide, 2500, moved(wide, "x5", 1.0), 200), LEAST_SHIFT, True),
        "correlation 0.9 to 0, 30 columns, 500 rows":
            (drawn(5, few, wide, 2500, loose, 500), LEAST_CORRELATION, True),
    }  # fmt: skip


def share_found(sets: list[tuple[pd.DataFrame, list[pd.DataFrame]]]) -> float:
    """Return the share of windows in which the monitor finds drift."""
    found = []
    for table, several in sets:
        of = baseline_of(table)
        found += [is_found(of, window) for window in several]
    return float(np.mean(found))


def by_peer(python: str, sets: list[tuple[pd.DataFrame, list[pd.DataFrame]]]) -> dict[str, float]:
    """Return the share of the same windows in which Evidently finds drift, by rule."""
    with tempfile.TemporaryDirectory() as scratch:
        for place, (table, several) in enumerate(sets):
            cut = len(table) * 4 // 5
            table[:cut].drop(columns="answer").to_csv(f"{scratch}/{place}-baseline.csv", index=False)
            for number, window in enumerate(several):
                window.drop(columns="answer").to_csv(f"{scratch}/{place}-{number}.csv", index=False)
        script = Path(__file__).with_name("drift_peer.py")
        done = subprocess.run(
            [python, "-W", "ignore", str(script), scratch], capture_output=True, text=True, check=True
        )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def write_log(folder: Path, rows: int) -> None:
    """Write a prediction log of a wide table, as the server does."""
    random = np.random.default_rng(7)
    place = folder / "wide"
    place.mkdir(parents=True)
    for number in range(0, rows, 100_000):
        count = min(100_000, rows - number)
        table = wide(random, count)
        own = {
            "_request_id": [f"{number + row:x}" for row in range(count)],
            "_row": np.zeros(count, np.int32),
            "_at": pa.array(np.arange(count) + number, pa.timestamp("us", "UTC")),
            "_model": pa.array(["wide"] * count).dictionary_encode(),
            "_version": np.ones(count, np.int32),
            "_prediction": (table["answer"] == "stays").astype(int).to_numpy(),
            "_prediction_name": table.pop("answer").to_numpy(),
        }
        columns = {name: table[name].to_numpy() for name in table}
        pq.write_table(pa.table(own | columns), place / f"{number:09}.parquet")


def cost(folder: Path, rows: int) -> tuple[float, int]:
    """Return the seconds and the peak memory in bytes of the whole command on a log of `rows` rows."""
    log = folder / f"log-{rows}"
    write_log(log, rows)
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "monitor", "--name", "wide", "--stage", "staging",
         "--current", str(log)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    if os.waitstatus_to_exitcode(status) not in {0, 4} or f"{rows} rows" not in said:
        raise SystemExit(f"monitor: {said}")
    return seconds, used.ru_maxrss * 1024


def costs() -> bool:
    """Measure the whole command on two logs, print time and memory, and check the targets."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        wide(np.random.default_rng(0), 6000).to_csv(folder / "wide.csv", index=False)
        subprocess.run(
            [sys.executable, "-m", "pipeline", "train", "--data", str(folder / "wide.csv"),
             "--target", "answer", "--name", "wide", "--plots", "false"],
            check=True, capture_output=True,
        )  # fmt: skip
        small, _ = cost(folder, 100_000)
        large, peak = cost(folder, 1_000_000)
    print(f"a log of 100,000 rows, 30 columns, whole command    {small:8.1f} s")
    met = large <= MOST_SECONDS and peak <= MOST_BYTES
    verdict = "met" if met else "MISSED"
    print(
        f"a log of 1,000,000 rows                              {large:8.1f} s, "
        f"{peak / 2**20:,.0f} MiB   wanted at most 30 s, 1 GiB: {verdict}"
    )
    return met


def main() -> int:
    """Run the measurements, print the results, and return 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=1000)
    parser.add_argument("--peer", help="a Python that has Evidently")
    parser.add_argument("--no-cost", action="store_true")
    options = parser.parse_args()
    print(machine())
    met = []
    for name, (sets, wanted, is_least) in cases(options.windows).items():
        found = share_found(sets)
        good = found >= wanted if is_least else found <= wanted
        met.append(good)
        bound = f"wanted at {'least' if is_least else 'most'} {wanted:.0%}"
        print(f"{name:<46} {found:7.1%}   {bound}: {'met' if good else 'MISSED'}", flush=True)
        if options.peer:
            for how, share in by_peer(options.peer, sets).items():
                print(f"    Evidently, {how:<31} {share:7.1%}", flush=True)
    if not options.no_cost:
        met.append(costs())
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
