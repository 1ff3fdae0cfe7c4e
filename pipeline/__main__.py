"""`python -m pipeline` is the pipeline's command line."""

import sys

try:
    from pipeline.cli import main
except ModuleNotFoundError as error:
    # `mlflow run --env-manager local` takes whichever python stands first in the PATH.
    sys.exit(
        f"pipeline: error: {sys.executable} has no {error.name}: activate the environment first "
        "(. .venv/bin/activate), or use make run"
    )

if __name__ == "__main__":
    sys.exit(main())
