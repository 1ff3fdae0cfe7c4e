"""Measure whether 10,000 versions and 100,000 runs slow down resolving and loading a stage.

    python benchmarks/registry_postgres.py [--versions 10000] [--runs 100000] [--rounds 60]

Two `mlflow server` processes use two databases of one PostgreSQL, each with a trained and promoted
version. In one database, SQL statements repeat the training with all its parameters, metrics, tags and
inputs, which takes a minute; 100,000 real trainings would take days. One client measures both servers in
turn. The exit code is 1 if the full database takes more than 1.5 times as long.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
sys.path.insert(0, str(Path(__file__).parents[1]))

from mlflow import MlflowClient

from registry_tools import load_model
from registry_tools.mlflow_store import registry
from registry_tools.refs import ModelRef
from tests.support.postgres import Postgres, has_postgres, postgres
from tests.support.servers import BIN
from tests.support.tracking_servers import server_over

MOST = 1.5
# The tables that store a training, with the columns that get a new value in each repetition.
RUN = {"run_uuid": "md5(number::text)", "start_time": "start_time - number"}
TRAINING = {
    "runs": RUN,
    "params": RUN,
    "tags": RUN,
    "metrics": RUN,
    "latest_metrics": RUN,
    "inputs": {"input_uuid": "md5('i' || number)", "destination_id": "md5(number::text)"},
    "logged_models": {"model_id": "'m-' || md5(number::text)", "source_run_id": RUN["run_uuid"]},
    "logged_model_tags": {"model_id": "'m-' || md5(number::text)"},
    "logged_model_params": {"model_id": "'m-' || md5(number::text)"},
    "logged_model_metrics": {"model_id": "'m-' || md5(number::text)", "run_id": RUN["run_uuid"]},
}
VERSION = {"version": "number", "current_stage": "'None'"}
VERSIONS = {"model_versions": VERSION, "model_version_tags": VERSION}


def train_and_promote(uri: str, folder: Path) -> str:
    """Train and promote a version with the commands of this project, and return its run id."""
    environment = {**os.environ, "MLFLOW_TRACKING_URI": uri}
    for command in (
        ("python", "-m", "pipeline", "train", "--plots", "false"),
        ("registry-tools", "promote", "iris/1", "--to", "production"),
    ):
        subprocess.run(
            [BIN / command[0], *command[1:]], cwd=folder, env=environment, check=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
    return str(MlflowClient(uri).get_model_version("iris", "1").run_id)


def fill(database: Postgres, name: str, run: str, runs: int, versions: int) -> None:
    """Repeat the rows of a training and of its version in the tables of a database."""
    trained = {"inputs": f"destination_id = '{run}'", "logged_models": f"source_run_id = '{run}'"}
    of_model = f"model_id IN (SELECT model_id FROM logged_models WHERE source_run_id = '{run}')"
    script = ["SET session_replication_role = replica"]  # switches off the checks of foreign keys
    for table, new in TRAINING.items():
        of_run = of_model if "_model_" in table else f"run_uuid = '{run}'"
        script.append(repeat(database, name, table, new, trained.get(table, of_run), runs))
    for table, new in VERSIONS.items():
        script.append(repeat(database, name, table, new, "name = 'iris'", versions))
    command = ("--dbname", name, "--set", "ON_ERROR_STOP=1", "--command", "; ".join(script))
    database.run("psql", *command)
    database.run("vacuumdb", "--analyze", "--dbname", name)  # autovacuum would do the same later


def repeat(database: Postgres, name: str, table: str, new: dict[str, str], which: str, size: int) -> str:
    """Return the SQL statement that repeats rows until each exists `size` times."""
    columns = ask(
        database,
        name,
        "SELECT column_name FROM information_schema.columns WHERE is_generated = 'NEVER' AND "
        f"is_identity = 'NO' AND table_schema = 'public' AND table_name = '{table}'",
    )
    values = ", ".join(new.get(column, column) for column in columns)
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} FROM {table}, "
        f"generate_series(2, {size}) AS number WHERE {which}"
    )


def ask(database: Postgres, name: str, question: str) -> list[str]:
    command = ("--dbname", name, "--tuples-only", "--no-align", "--command", question)
    return database.run("psql", *command).split()


def size_of(database: Postgres, name: str, tables: dict[str, dict[str, str]]) -> int:
    """Return the size of tables with their indexes, in bytes."""
    total = " + ".join(f"pg_total_relation_size('{table}')" for table in tables)
    return int(ask(database, name, f"SELECT {total}")[0])


def measured(rounds: int, ask: Callable[[str], object], uris: list[str]) -> list[float]:
    """Return the median milliseconds of a call for each registry, with the registries in turn."""
    taken: list[list[float]] = [[] for _ in uris]
    for number in range(rounds + 3):
        for which, uri in enumerate(uris):
            began = time.perf_counter()
            ask(uri)
            if number >= 3:  # the first calls open connections
                taken[which].append((time.perf_counter() - began) * 1000)
    return [statistics.median(times) for times in taken]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--versions", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    if not has_postgres():
        print("pgserver, a wheel with PostgreSQL, does not exist for this Python or machine")
        return 0
    warnings.simplefilter("ignore")
    with ExitStack() as stack:
        database = stack.enter_context(postgres())
        uris = []
        for name in ("empty", "full"):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            store = database.make(name)
            uris.append(stack.enter_context(server_over(store, folder, "--workers", "1")))
            run = train_and_promote(uris[-1], folder)
        began = time.perf_counter()
        fill(database, "full", run, options.runs, options.versions)
        print(f"filled in {time.perf_counter() - began:.0f} s")
        for what, tables, rows in (("run", TRAINING, options.runs), ("version", VERSIONS, options.versions)):
            print(f"a {what} takes {size_of(database, 'full', tables) / rows:,.0f} bytes")
        clients = {uri: MlflowClient(uri) for uri in uris}
        ref = ModelRef("iris", stage="production")
        questions: dict[str, Callable[[str], object]] = {
            "stage look-up": lambda uri: registry.find_version(clients[uri], ref),
            "load_model": lambda uri: load_model("iris@production", tracking_uri=uri),
        }
        worst = 0.0
        print(f"{'':16}{'empty':>10}{'full':>10}   ratio")
        for name, question in questions.items():
            empty, full = measured(options.rounds, question, uris)
            print(f"{name:16}{empty:8.1f}ms{full:8.1f}ms   {full / empty:.2f}", flush=True)
            worst = max(worst, full / empty)
    return int(worst > MOST)


if __name__ == "__main__":
    sys.exit(main())
