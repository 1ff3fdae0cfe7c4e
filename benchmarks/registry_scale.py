"""Measure the commands on models with 10, 1,000 and 10,000 versions and as many events.

    python benchmarks/registry_scale.py [--rounds 5]

Each store has one training and one promotion, which SQL statements repeat in the tables. That takes a
second; 10,000 real promotions would take half a day. The program times whole commands, with the sizes in
turn.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIZES = (10, 1_000, 10_000)
BIN = Path(sys.prefix, "bin")
# The commands of one round leave the store unchanged: the rollback undoes the promotion.
COMMANDS = {
    "list --limit 20": ["list", "iris", "--limit", "20"],
    "show": ["show", "iris@production"],
    "promote": ["promote", "iris/2", "--to", "production"],
    "rollback": ["rollback", "iris", "--reason", "benchmark"],
    "history --limit 20": ["history", "iris", "--limit", "20"],
    "verify": ["verify", "iris@production"],
    "repair": ["repair", "iris"],
}


def run(folder: Path, *command: str) -> float:
    """Run a command in the folder of a store and return its wall time in seconds."""
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    began = time.perf_counter()
    done = subprocess.run(
        [str(BIN / command[0]), *command[1:]], cwd=folder, env=environment, capture_output=True, text=True
    )
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: {done.stderr}")
    return time.perf_counter() - began


def make_store(folder: Path, size: int) -> None:
    """Train and promote once, and repeat the rows of both in the database."""
    folder.mkdir()
    run(folder, "python", "-m", "pipeline", "train")
    run(folder, "registry-tools", "promote", "iris/1", "--to", "production")
    database = sqlite3.connect(folder / "mlflow.db")
    with database:
        for table in ("model_versions", "model_version_tags"):
            new = {"version": "number", "current_stage": "'None'"}
            repeat(database, table, "version = 1", new, size)
        event = "run_uuid IN (SELECT run_uuid FROM tags WHERE key = 'action' AND value = 'promote')"
        for table in ("runs", "tags", "params", "metrics", "latest_metrics"):
            new = {"run_uuid": "printf('%032x', number)", "start_time": "start_time - number"}
            repeat(database, table, event, new, size)
    database.close()


def repeat(database: sqlite3.Connection, table: str, which: str, new: dict[str, str], size: int) -> None:
    """Repeat rows of a table until each exists `size` times; `new` holds the SQL of changed columns."""
    columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
    values = ", ".join(new.get(column, column) for column in columns)
    database.execute(
        "WITH RECURSIVE numbers(number) AS "
        f"(SELECT 2 UNION ALL SELECT number + 1 FROM numbers WHERE number < {size}) "
        f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} "
        f"FROM {table}, numbers WHERE {which}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as scratch:
        folders = {size: Path(scratch, str(size)) for size in SIZES}
        for size, folder in folders.items():
            make_store(folder, size)
        seconds: dict[tuple[str, int], list[float]] = {}
        for _ in range(rounds):
            for name, command in COMMANDS.items():
                for size, folder in folders.items():
                    taken = run(folder, "registry-tools", *command)
                    seconds.setdefault((name, size), []).append(taken)
    print(f"{'':20}" + "".join(f"{size:>10,}" for size in SIZES) + "   ratio to 10 versions")
    for name in COMMANDS:
        medians = [statistics.median(seconds[name, size]) for size in SIZES]
        ratios = ", ".join(f"{median / medians[0]:.2f}" for median in medians[1:])
        print(f"{name:20}" + "".join(f"{median:9.2f}s" for median in medians) + f"   {ratios}")


if __name__ == "__main__":
    main()
