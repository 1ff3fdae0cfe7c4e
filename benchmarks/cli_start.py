"""Measure the start time of the command line, as a ratio to the libraries that it imports.

It compares `registry-tools --help` with `mlflow --help`, and one prediction by stage with the import of
MLflow, skops and scikit-learn, which every prediction needs.

    python benchmarks/cli_start.py [PAIRS]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from pairs import Command, compare, machine

BIN = Path(sys.prefix, "bin")
ROOT = Path(__file__).parents[1]


def main(pairs: int) -> int:
    """Run the measurements, print the ratios, and return 1 if a target is missed."""
    with tempfile.TemporaryDirectory() as scratch:
        environment = {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_TRACKING_URI": f"sqlite:///{scratch}/mlflow.db",
            "PYTHONPATH": str(ROOT),
        }

        def command(title: str, *argv: str | Path) -> Command:
            return Command(title, argv, lambda: Path(scratch), environment)

        python = BIN / "python"
        training = command("train", python, "-m", "pipeline", "train")
        subprocess.run(
            [str(part) for part in training.argv], cwd=scratch, env=environment, check=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        print(machine())
        met = compare(
            command("registry-tools --help", BIN / "registry-tools", "--help"),
            command("mlflow --help", BIN / "mlflow", "--help"),
            pairs,
            wanted=0.1,
        )
        met &= compare(
            command(
                "registry-tools predict iris@staging",
                *(BIN / "registry-tools", "predict", "iris@staging"),
                *("--features", "6.0,2.5,4.5,1.5"),
            ),
            command(
                "import mlflow, skops.io, sklearn.linear_model",
                *(python, "-c", "import mlflow, skops.io, sklearn.linear_model"),
            ),
            pairs,
            wanted=1.5,
        )
        return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 7))
