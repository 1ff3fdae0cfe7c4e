"""MLflow models that are Python functions.

Each class is local to a function, so that MLflow stores its code with the model. The module has no
`from __future__ import annotations`, because MLflow reads the type hints.
"""

from typing import Any

import pandas as pd
from mlflow.pyfunc import PythonModel


def echo() -> PythonModel:
    """Return a model that returns its rows and parameters, and numbers that JSON cannot represent."""

    class Echo(PythonModel):  # type: ignore[misc]
        def predict(self, context: Any, model_input: Any, params: dict[str, Any] | None = None) -> Any:
            rows = model_input.to_dict("records") if isinstance(model_input, pd.DataFrame) else model_input
            return [{"rows": rows, "params": params, "kinds": [float("nan"), float("inf"), 2**70]}]

    return Echo()


def hinted() -> PythonModel:
    """Return a model that has type hints instead of a schema of columns."""

    class Hinted(PythonModel):  # type: ignore[misc]
        def predict(self, model_input: list[dict[str, float]]) -> list[float]:
            return [sum(row.values()) for row in model_input]

    return Hinted()


def column(kind: str) -> PythonModel:
    """Return a model that returns its first column as a Series, or as a table of one or two columns."""

    class FirstColumn(PythonModel):  # type: ignore[misc]
        def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
            first = model_input.iloc[:, 0]
            tables = {"one": pd.DataFrame({"found": first}), "two": pd.DataFrame({"a": first, "b": first})}
            return tables.get(kind, first)

    return FirstColumn()
