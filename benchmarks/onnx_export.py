"""Count the labels that differ between models and their ONNX files, on random and on boundary rows.

python benchmarks/onnx_export.py

Prints the table of docs/edge.md. Each model is fitted to Iris, or to a table with text, booleans and missing
values.
"""

from __future__ import annotations

import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from sklearn.datasets import load_iris

from pipeline.params.definitions import TrainParams
from pipeline.training.model_pipeline import build_pipeline
from registry_tools.data.schema import Column
from registry_tools.errors import UnsupportedOperation
from registry_tools.models.loaded_model import LoadedModel, ModelInfo
from registry_tools.models.onnx.check import boundary_rows, differences, open_session
from registry_tools.models.onnx.convert import to_onnx

RANDOM_ROWS = 10_000
MODELS = {
    "logistic_regression": {},
    "svc": {},
    "random_forest": {},
    "hist_gradient_boosting": {},
    "knn": {},
    "knn, weights=distance": {"weights": "distance"},
    "xgboost": {},
    "lightgbm": {},
}
_TYPES = {"f": "double", "i": "long", "O": "string"}


def iris() -> tuple[pd.DataFrame, np.ndarray]:
    """Return the rows and labels of Iris."""
    table, labels = load_iris(return_X_y=True, as_frame=True)
    return table, labels.to_numpy()


def with_text() -> tuple[pd.DataFrame, np.ndarray]:
    """Return rows with numbers, text of few and of many values, and missing values, and their labels."""
    rng, rows = np.random.default_rng(0), 400
    table = pd.DataFrame(
        {
            "size": rng.normal(50, 20, rows).round(1),
            "rooms": rng.integers(1, 6, rows),
            "town": rng.choice(["Köln", "Bonn", "Bad Ems"], rows).astype(object),
            "street": np.array([f"street {n}" for n in rng.integers(0, 150, rows)], dtype=object),
        }
    )
    for name in ("size", "town", "street"):
        table.loc[rng.random(rows) < 0.1, name] = np.nan
    price = table["size"].fillna(40) + 10 * table["rooms"] + 20 * (table["town"] == "Bonn")
    return table, np.digitize(price + rng.normal(0, 5, rows), [70, 100])


def random_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return uniform numbers within the range of each column, and values of each column of text."""
    rng, columns = np.random.default_rng(1), {}
    for name, column in table.items():
        if column.dtype.kind == "f":
            columns[name] = rng.uniform(column.min(), column.max(), RANDOM_ROWS)
        else:
            columns[name] = rng.choice(column.to_numpy(), RANDOM_ROWS)
    return pd.DataFrame(columns).astype(table.dtypes)


def fitted(name: str, table: pd.DataFrame, labels: np.ndarray) -> LoadedModel:
    """Return a model of the training as a loaded version."""
    params = TrainParams(model=name.partition(",")[0], model_params=MODELS[name]).replace(
        task="classification"
    )
    even = np.arange(len(table)) % 2 == 0
    folds = [(np.flatnonzero(side), np.flatnonzero(~side)) for side in (even, ~even)]
    estimator = build_pipeline(params, table, folds).fit(table, labels)
    columns = tuple(Column(str(key), _TYPES[col.dtype.kind], False) for key, col in table.items())
    return LoadedModel(ModelInfo(name, 1, None, None, None, ("a", "b", "c"), columns), estimator)


def counts(model: LoadedModel, table: pd.DataFrame) -> str:
    """Return the differing random and boundary rows as cells of the table, or the refusal."""
    try:
        session = open_session(to_onnx(model).SerializeToString())
    except UnsupportedOperation as error:
        return str(error)
    rows = random_rows(table)
    boundary = boundary_rows(model, rows, model.predict(rows))
    found = [int(differences(session, model, each)[0].sum()) for each in (rows, boundary)]
    return f"{found[0]} | {found[1]} of {len(boundary)} | {'no' if any(found) else 'yes'}"


def main() -> int:
    """Print the table; fail if a model other than the expected one differs."""
    print("| model | table | differing of 10,000 random rows | at the boundary | written |")
    print("| --- | --- | --- | --- | --- |")
    wrong = 0
    for title, (table, labels) in {"Iris": iris(), "with text": with_text()}.items():
        for name in MODELS:
            cells = counts(fitted(name, table, labels), table)
            print(f"| `{name}` | {title} | {cells} |", flush=True)
            wrong += cells.endswith("no") and name != "knn, weights=distance"
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
