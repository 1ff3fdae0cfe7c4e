"""Text models: one that selects its text column, and one whose vectorizer gets the whole table.

A vectorizer that gets a table iterates over its column names, which is a common mistake.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.models import infer_signature
from sklearn.compose import make_column_transformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

ROWS = 58
TABLE = pd.DataFrame(
    {
        "text": [f"good film {n}" if n % 2 else f"bad plot {n}" for n in range(ROWS)],
        "kind": ["good" if n % 2 else "bad" for n in range(ROWS)],
    }
)


def register_text_model(name: str) -> str:
    """Register a version whose vectorizer is not behind a ColumnTransformer; return its reference."""
    with mlflow.start_run():
        info = mlflow.sklearn.log_model(fit(), name="model", registered_model_name=name, **options())
    return f"{name}/{info.registered_model_version}"


def save_text_model(folder: Path, example_rows: int | None = None) -> None:
    """Save a model whose vectorizer gets the whole table, with an input example of `example_rows`."""
    example = TABLE[["text"]].head(example_rows) if example_rows else None
    mlflow.sklearn.save_model(fit(), folder, input_example=example, **options())


def register_working_text_model(name: str) -> str:
    """Register a version that predicts a name from a text, with an example; return its reference."""
    column = make_column_transformer((TfidfVectorizer(), "text"))
    model = make_pipeline(column, LogisticRegression()).fit(TABLE[["text"]], TABLE["kind"])
    with mlflow.start_run():
        info = mlflow.sklearn.log_model(
            model,
            name="model",
            registered_model_name=name,
            input_example=TABLE[["text"]].head(2),
            **options(),
        )
    return f"{name}/{info.registered_model_version}"


def fit() -> Pipeline:
    pipeline = make_pipeline(TfidfVectorizer(), LogisticRegression())
    return pipeline.fit(TABLE["text"], TABLE["kind"])


def options() -> dict[str, Any]:
    return {
        "signature": infer_signature(TABLE[["text"]], TABLE["kind"]),
        "serialization_format": "skops",
        "pip_requirements": [],
    }
