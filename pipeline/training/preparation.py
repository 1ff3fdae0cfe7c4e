"""Prepare the columns of a table for the estimators: impute missing values, encode text and booleans."""

from __future__ import annotations

from typing import Any

import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

# A text column with more values keeps the most frequent ones and pools the others. One-hot columns are
# dense, so a column of identifiers would fill the memory.
MAX_CATEGORIES = 100


def column_transformer(features: pd.DataFrame) -> ColumnTransformer | None:
    """Return a transformer from raw columns to numbers; None if all columns are complete numbers."""
    booleans = [c for c in features if _is_boolean(features[c])]
    numbers = [c for c in features if pd.api.types.is_numeric_dtype(features[c]) and c not in booleans]
    texts = [c for c in features if c not in booleans and c not in numbers]
    if not booleans and not texts and not features.isna().to_numpy().any():
        return None
    parts: list[tuple[str, Any, list[Any]]] = []
    if numbers:
        parts.append(("numbers", SimpleImputer(strategy="median", keep_empty_features=True), numbers))
    if texts:
        filled = SimpleImputer(strategy="constant", fill_value="missing", keep_empty_features=True)
        parts.append(("texts", Pipeline([("fill", filled), ("one_hot", _one_hot())]), texts))
    if booleans:
        parts.append(("booleans", _one_hot(), booleans))
    return ColumnTransformer(parts)


def _is_boolean(column: pd.Series) -> bool:
    """Check whether a column is boolean; pandas stores booleans with missing values as objects."""
    return pd.api.types.is_bool_dtype(column) or bool(
        column.dtype == object and column.map(type).eq(bool).any()
    )


def _one_hot() -> OneHotEncoder:
    # A category that is not in the training rows must not raise an error at prediction.
    return OneHotEncoder(
        handle_unknown="infrequent_if_exist", max_categories=MAX_CATEGORIES, sparse_output=False
    )
