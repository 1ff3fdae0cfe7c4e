"""Imports that leave out what is not needed, which is a third of a process's memory."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without(*packages: str) -> Iterator[None]:
    """Let what is imported inside believe that packages are not installed.

    scikit-learn and MLflow import pandas, and pandas imports pyarrow, only because they are there:
    75 MB and 0.3 s in a process that may never see a frame. Both do without, as documented, and
    take a frame as well when pandas is imported later, which it can be after this.
    """
    hidden = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)


def whole_mlflow() -> None:
    """Make good what MLflow left out of itself when it was imported without pandas.

    It has a form without pandas of its own, mlflow-skinny, in which these two packages lack the
    names that need a frame; reading them again with pandas at hand adds those.
    """
    import mlflow.models
    import mlflow.types

    if not hasattr(mlflow.models, "ModelSignature"):
        importlib.reload(mlflow.types)
        importlib.reload(mlflow.models)
