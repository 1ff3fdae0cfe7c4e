"""The application: trains a classifier, logs it to MLflow and registers it.

Four functions train, save, load and use an Iris classifier without MLflow. Each is imported when
you first use it: `import pipeline` loads neither scikit-learn nor NumPy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.iris import load_model, predict_sample, save_model, train_iris_model

__all__ = ["load_model", "predict_sample", "save_model", "train_iris_model"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module("pipeline.iris"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
