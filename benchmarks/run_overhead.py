"""Compare `mlflow run .` of this project with a minimal MLflow project, each on a new store.

The minimal project starts a run, fits, logs a parameter and a metric, and registers the model with
`log_model(registered_model_name=…)`. Ours logs and registers everything that the README describes.

    python benchmarks/run_overhead.py [PAIRS]
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from pairs import Command, compare, machine

ROOT = Path(__file__).parents[1]
MLFLOW = Path(sys.prefix, "bin", "mlflow")

NAIVE_PROJECT = """\
name: naive
entry_points:
  main:
    parameters:
      max_iter: {type: float, default: 200}
    command: python train.py {max_iter}
"""
NAIVE_TRAIN = """\
import sys

import mlflow
import mlflow.sklearn
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

X, y = load_iris(return_X_y=True, as_frame=True)
parts = train_test_split(X, y, test_size=0.2, random_state=42, stratify=y)
X_train, X_test, y_train, y_test = parts
with mlflow.start_run():
    model = LogisticRegression(max_iter=int(sys.argv[1])).fit(X_train, y_train)
    mlflow.log_param("iterations", int(sys.argv[1]))
    mlflow.log_metric("accuracy", model.score(X_test, y_test))
    mlflow.sklearn.log_model(model, name="model", registered_model_name="iris")
"""


def main(pairs: int) -> int:
    """Run the measurements, print the ratio, and return 1 if the target is missed."""
    with tempfile.TemporaryDirectory() as scratch:
        naive = Path(scratch, "naive")
        naive.mkdir()
        (naive / "MLproject").write_text(NAIVE_PROJECT)
        (naive / "train.py").write_text(NAIVE_TRAIN)

        environment = {
            "PATH": f"{MLFLOW.parent}:/usr/local/bin:/usr/bin:/bin",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        commands = []
        for title, project in (("mlflow run, this project", ROOT), ("mlflow run, naive", naive)):
            copy = Path(scratch, f"project-{len(commands)}")
            shutil.copytree(project, copy, ignore=_only_what_runs)
            argv = (MLFLOW, "run", ".", "--env-manager", "local")
            commands.append(Command(title, argv, _without_store(copy), environment))
        print(machine())
        return 0 if compare(*commands, pairs=pairs, wanted=0.75) else 1


def _without_store(folder: Path) -> Callable[[], Path]:
    """Return a function that removes the store of the previous run and keeps compiled modules."""

    def prepare() -> Path:
        (folder / "mlflow.db").unlink(missing_ok=True)
        shutil.rmtree(folder / "mlruns", ignore_errors=True)
        return folder

    return prepare


def _only_what_runs(folder: str, names: list[str]) -> set[str]:
    kept = {"MLproject", "conda.yaml", "pipeline", "registry_tools", "train.py"}
    return set(names) - kept if Path(folder).name in {ROOT.name, "naive"} else {"__pycache__"}


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5))
