"""Imports that leave out what is not needed, which is a third of a process's memory."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

# The classes that scikit-learn reads from a package once it is in `sys.modules`.
_FRAME_CLASSES = {
    "pandas": ("DataFrame", "Series"),
    "pyarrow": ("Table", "RecordBatch", "Array", "ChunkedArray"),
}


# scikit-learn and MLflow import pandas, and pandas imports pyarrow, only because they are there:
# 75 MB and 0.3 s in a process that may never see a frame. Both do without, as documented, and take
# a frame as well when pandas is imported later. What skops imports of scikit-learn wants pytest.
_lock = threading.Lock()
OPTIONAL = ("pandas", "pyarrow", "pytest")


@contextmanager
def hide_packages(*packages: str) -> Iterator[None]:
    """Let what is imported inside believe that packages are not installed; later they are again."""
    hidden = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)


def load_full_mlflow() -> None:
    """Make good what MLflow left out of itself when it was imported without pandas.

    It has a form without pandas of its own, mlflow-skinny, in which these two packages lack the
    names that need a frame; reading them again with pandas at hand adds those.
    """
    with _lock:
        import mlflow.models
        import mlflow.types

        if not hasattr(mlflow.models, "ModelSignature"):
            importlib.reload(mlflow.types)
            importlib.reload(mlflow.models)


def allow_imports_while_predicting() -> None:
    """Let pandas and pyarrow be imported in one thread while another predicts.

    scikit-learn asks of every input whether it is a frame of a package that it sees imported; one
    that is half imported does not have that class yet, and the prediction would fail. Until it
    does, a class that nothing is an instance of stands in its place.
    """
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if name not in _FRAME_CLASSES:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(Loader):
    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = ModuleType(spec.name)
        for name in _FRAME_CLASSES[spec.name]:
            setattr(module, name, type(name, (), {}))
        return module

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__loader__ = module.__spec__.loader = self._loader
        self._loader.exec_module(module)
