"""Run the command line of the pipeline: `python -m pipeline`."""

import sys

try:
    from pipeline.cli import main
except ModuleNotFoundError as error:
    # `mlflow run --env-manager local` runs the first `python` on the PATH, which may have no packages.
    sys.exit(
        f"pipeline: error: {sys.executable} has no {error.name}: activate the environment first "
        "(. .venv/bin/activate), or use make run"
    )

if __name__ == "__main__":
    sys.exit(main())
