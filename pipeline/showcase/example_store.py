"""Build the example store with commands of this project, and open a copy of it in the MLflow UI.

The commands run against a real `mlflow server`, which stores the artifacts. All artifact addresses are
therefore `mlflow-artifacts:/…`, so that a copy works in every folder.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pandas as pd

from pipeline.errors import PipelineError
from pipeline.showcase.servers import OutdatedSchema, check_port, project_environment, run_module, run_server
from registry_tools.errors import last_line
from registry_tools.mlflow_store.tags import TRAINING_VIEW

DATABASE = "mlflow.db"
ARTIFACTS = "artifacts"


def _train(*arguments: str) -> list[str]:
    return ["pipeline", "train", *arguments]


def _promote(ref: str, reason: str) -> list[str]:
    return ["registry_tools", "promote", ref, "--to", "production", "--reason", reason]


def _monitor(week: int) -> list[str]:
    files = ["--current", f"week-{week}.csv", "--labels", f"labels-{week}.csv"]
    return ["pipeline", "monitor", *files, "--min-rows", "100"]


DIGITS = ["--data", "digits.csv", "--target", "digit", "--name", "digits"]
BARE = ["--plots", "false"]  # for a store that is small and soon built
QUICK = [*BARE, "--cv", "3"]
DIABETES = ["--data", "diabetes.csv", "--target", "progression", "--name", "diabetes"]
SWEPT = ["--model", "xgboost", "--max-iter", "15", "--subset-size", "900"]
WEEKS = 6
REFUSED = _promote("iris/1", "to see it refused")  # by a gate: exit code 3
STEPS = [
    _train(*BARE, "--max-iter", "1"),
    _train(*BARE, "--model-params", '{"C": 0.01}'),
    _train(),
    _promote("iris@staging", "the first that is good enough"),
    _train(*BARE, "--model", "knn", "--model-params", '{"n_neighbors": 15}'),
    _train(*BARE, "--model", "svc", "--model-params", '{"C": 10.0, "kernel": "linear"}'),
    _train(*BARE, "--model", "random_forest", "--model-params", '{"n_estimators": 10}'),
    _train(*BARE, "--model", "hist_gradient_boosting", "--max-iter", "10"),
    REFUSED,
    _promote("iris/5", "a linear kernel does as well"),
    ["registry_tools", "rollback", "iris", "--reason", "the calibration was better before"],
    *(_monitor(week) for week in range(WEEKS)),
    _train("--max-iter", "300"),
    _train(*DIGITS, *QUICK, "--model-params", '{"C": 0.05}'),
    _promote("digits@staging", "the first"),
    _train(
        *DIGITS, *QUICK, "--model", "random_forest", "--model-params", '{"n_estimators": 10, "max_depth": 5}'
    ),
    _train(*DIGITS, *QUICK, "--model", "svc"),
    _promote("digits@staging", "fewer errors"),
    _train(*DIGITS, *QUICK, "--model", "xgboost", "--model-params", '{"max_depth": 2}', "--max-iter", "20"),
    _train(*DIGITS, *QUICK, "--model", "lightgbm", "--model-params", '{"num_leaves": 4}', "--max-iter", "20"),
    ["pipeline", "sweep", *DIGITS, *QUICK, *SWEPT, "--n-trials", "16", "--n-jobs", "2"],
    _train(*DIABETES),
    _promote("diabetes@staging", "the first"),
    _train(*DIABETES, *BARE, "--model", "linear"),
]


def make(folder: Path) -> None:
    """Build the example store, and replace the store in the folder.

    Raises
    ------
    PipelineError
        If a command does not end with its expected exit code. The old store stays as it is.
    """
    with tempfile.TemporaryDirectory() as scratch:
        new, work = Path(scratch, "store"), Path(scratch, "work")
        new.mkdir()
        work.mkdir()
        _write_tables(work)
        with server(new) as (address, _):
            for step in STEPS:
                _run(step, work, address)
        _compact_database(new / DATABASE)
        folder.mkdir(parents=True, exist_ok=True)
        # All steps that can fail come before the first file of the old store is deleted.
        with tempfile.TemporaryDirectory(dir=folder) as beside:
            for name in (DATABASE, ARTIFACTS):
                shutil.move(str(new / name), str(Path(beside, name)))
            for name in (DATABASE, ARTIFACTS):
                old = folder / name
                shutil.rmtree(old) if old.is_dir() else old.unlink(missing_ok=True)
                Path(beside, name).rename(old)


def _write_tables(folder: Path) -> None:
    """Write tables of scikit-learn as files, and flowers of some weeks whose petals become wider."""
    from sklearn.datasets import load_diabetes, load_digits, load_iris

    digits, diabetes = load_digits(as_frame=True), load_diabetes(as_frame=True)
    digits.data.assign(digit=digits.target).to_csv(folder / "digits.csv", index=False)
    diabetes.data.assign(progression=diabetes.target).to_csv(folder / "diabetes.csv", index=False)
    iris = load_iris(as_frame=True)
    for week in range(WEEKS):
        rows = iris.data.sample(150, replace=True, random_state=week)
        species = iris.target_names[iris.target[rows.index]]
        rows["petal width (cm)"] += 0.25 * max(0, week - 1)
        ids = [f"{week}-{number}" for number in range(len(rows))]
        rows.assign(request_id=ids).to_csv(folder / f"week-{week}.csv", index=False)
        labels = pd.DataFrame({"request_id": ids, "label": species})
        labels.to_csv(folder / f"labels-{week}.csv", index=False)


def _run(step: Sequence[str], work: Path, address: str) -> None:
    done = run_module(step, work, _environment() | {"MLFLOW_TRACKING_URI": address})
    expected = (3,) if step is REFUSED else (0, 4) if "monitor" in step else (0,)  # 4: drift
    if done.returncode not in expected:
        codes = f"exit code {done.returncode} instead of {expected[0]}"
        raise PipelineError(f"{' '.join(step)}: {codes}: {done.stderr.strip()[-2000:]}")


def _environment() -> dict[str, str]:
    """Return an environment that keeps user name and paths of this machine out of the store."""
    return project_environment(
        LOGNAME="example",
        USER="example",
        MLFLOW_RUN_CONTEXT=json.dumps({"mlflow.source.name": "pipeline", "mlflow.user": "example"}),
        MLFLOW_DISABLE_TELEMETRY="true",
        # The jobs of MLflow's server serve its GenAI features and would start eight more processes.
        MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false",
        MLFLOW_LOGGING_LEVEL="WARNING",
    )


def _compact_database(database: Path) -> None:
    """Shrink a SQLite database to one file without a write-ahead log."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
        connection.execute("VACUUM")


@contextlib.contextmanager
def server(folder: Path, port: int | None = None) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run `mlflow server` on the store in a folder until the body ends; yield address and process.

    Raises
    ------
    PipelineError
        If the server does not start.
    """
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{folder / DATABASE}"),
        *("--artifacts-destination", str(folder / ARTIFACTS)),
    ]
    with run_server(command, folder, _environment(), "MLflow server", port) as (chosen, process):
        yield f"http://127.0.0.1:{chosen}", process
    (folder / "server.log").unlink()


@contextlib.contextmanager
def _console(folder: Path, port: int, registry: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the console of a registry until the body ends; yield its process."""
    scratch = folder / "console"
    scratch.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "registry_tools", "console", "--tracking-uri", registry]
    with run_server(command, scratch, _environment(), "console", port) as (_, process):
        yield process


def show(folder: Path, port: int, echo: Callable[[str], None], console: bool = False) -> None:
    """Open a copy of the example store in the MLflow UI or in the console until interrupted.

    The changes are discarded.

    Raises
    ------
    PipelineError
        If the folder has no store, the port is in use, or the server does not start.
    """
    check_port(port)
    if not (folder / DATABASE).is_file() or not (folder / ARTIFACTS).is_dir():
        raise PipelineError(f"{folder} has no example store: run `make example` to build one")
    # A list, since a handler that interrupts `threading.Event.wait` deadlocks in `set`.
    signals: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: signals.append(received))
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch)
        # `copyfile` does not copy a read-only mode, which `shutil.copy` would.
        shutil.copyfile(folder / DATABASE, copy / DATABASE)
        shutil.copytree(folder / ARTIFACTS, copy / ARTIFACTS, copy_function=shutil.copyfile)
        try:
            _serve(copy, port, echo, signals, console)
        except OutdatedSchema:
            _upgrade(copy / DATABASE)
            _serve(copy, port, echo, signals, console)


def _serve(folder: Path, port: int, echo: Callable[[str], None], signals: list[int], console: bool) -> None:
    with contextlib.ExitStack() as running:
        address, process = running.enter_context(server(folder, None if console else port))
        processes = {"MLflow server": process}
        if console:
            processes["console"] = running.enter_context(_console(folder, port, address))
            echo(f"http://127.0.0.1:{port}  the console on a copy of the example store, read-only")
        else:
            _print_links(address, echo)
        while not signals:
            for name, each in processes.items():
                if each.poll() is not None:
                    raise PipelineError(f"the {name} ended with exit code {each.returncode}")
            time.sleep(0.2)


def _upgrade(database: Path) -> None:
    command = ["mlflow", "db", "upgrade", f"sqlite:///{database}"]
    done = run_module(command, database.parent, _environment())
    if done.returncode != 0:
        reason = last_line(done.stderr, "no output")
        raise PipelineError(f"the store was created by an older MLflow and cannot be upgraded: {reason}")


def _print_links(address: str, echo: Callable[[str], None]) -> None:
    runs = f"{address}/#/experiments/%d/runs?{TRAINING_VIEW}&viewStateShareKey=%s"
    echo(f"{address}  a copy of the example store: your changes are discarded at the end")
    echo(f"  {runs % (1, 'best')}  runs of five models: select some and press Compare")
    version = f"{address}/#/models/iris/versions/3?{TRAINING_VIEW}"
    echo(f"  {version}  the version in production")
    echo(f"  {runs % (2, 'events')}  the history: promotions, a refusal and a rollback")
    echo(f"  {runs % (3, 'monitorings')}  six weeks of monitoring, and a run that shows them as lines")
    echo(f"  {runs % (4, 'best')}  a sweep, and boosting runs with their losses")
