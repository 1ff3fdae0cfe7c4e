"""Prepare the columns of a table for the estimators: impute, encode, take dates apart and scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import sklearn
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler, TargetEncoder

from pipeline.data.columns import BOOLEANS, DATES, NUMBERS, TEXTS, kinds_of_columns
from pipeline.data.folds import Rows
from pipeline.estimators import ESTIMATORS
from pipeline.params.definitions import TrainParams
from pipeline.params.types import AUTO
from registry_tools.data.dates import PARTS, date_parts, parse_dates
from registry_tools.task import REGRESSION

# A text column with more values is encoded by the labels of its rows: one-hot columns are dense, so a column
# of identifiers would fill the memory.
MAX_CATEGORIES = 100
# Missing text gets a category of its own, under a name that no text of a table has. NumPy drops the NULs at
# the end of a text, so a name of only NULs would become the empty text, which a table may have.
_NO_TEXT = "\0missing"
_MAGNITUDES = 10  # of standard deviations; with more, `scale=auto` scales
_ENCODED_DEVIATION = 0.5  # of a one-hot column whose category has half of the rows; no column has more


def column_transformer(
    features: pd.DataFrame, params: TrainParams, folds: Sequence[tuple[Rows, Rows]] = ()
) -> BaseEstimator | None:
    """Return an unfitted transformer from raw columns to numbers; None if the estimator can take them.

    Parameters
    ----------
    features
        All rows, shape (rows, columns). Their types and missing values decide the preparation.
    params
        The parameters of the training; `task`, `model`, `dtypes`, `scale` and `random_state` are used.
    folds
        Positions of the rows that the transformer will be fitted to, for the encoding by labels; empty for
        random ones.
    """
    kinds = kinds_of_columns(features, params.dtypes)
    if len(kinds[NUMBERS]) == features.shape[1] and not features.isna().to_numpy().any():
        return StandardScaler() if is_scaled(params, features) else None
    many = [name for name in kinds[TEXTS] if features[name].nunique() > MAX_CATEGORIES]
    few = [name for name in kinds[TEXTS] if name not in many]
    median = SimpleImputer(strategy="median", keep_empty_features=True)
    numeric = [median, StandardScaler()] if is_scaled(params, features) else [median]
    # MLflow's server passes the null of JSON as None if no row has a text, and as NaN otherwise.
    fill = {"strategy": "constant", "fill_value": _NO_TEXT, "keep_empty_features": True}
    filled = [SimpleImputer(missing_values=missing, **fill) for missing in (np.nan, None)]
    # A category that is not in the training rows must not raise an error at prediction.
    one_hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    parts: list[tuple[str, list[Any], list[str]]] = [
        ("numbers", numeric, kinds[NUMBERS]),
        ("dates", [_date_parts(features[kinds[DATES]]), *numeric], kinds[DATES]),
        ("texts", [*filled, one_hot], few),
        ("codes", [*filled, _target_encoder(params, folds)], many),
        ("booleans", [one_hot], kinds[BOOLEANS]),
    ]
    return ColumnTransformer([(name, _in_turn(steps), columns) for name, steps, columns in parts if columns])


def is_scaled(params: TrainParams, features: pd.DataFrame) -> bool:
    """Return whether numbers and dates are scaled to the same standard deviation.

    With `scale=auto`, they are if the columns differ in magnitude so much that it changes the result of
    the model.

    Parameters
    ----------
    params
        The parameters of the training; `model`, `dtypes` and `scale` are used.
    features
        All rows, shape (rows, columns).
    """
    if params.scale != AUTO or not ESTIMATORS[params.model].needs_scaling:
        return params.scale == "true"
    kinds = kinds_of_columns(features, params.dtypes)
    deviations = [float(features[name].std()) for name in kinds[NUMBERS]]
    if kinds[TEXTS] or kinds[BOOLEANS]:
        deviations.append(_ENCODED_DEVIATION)
    positive = [value for value in deviations if value > 0]
    return bool(kinds[DATES]) or max(positive, default=0) > _MAGNITUDES * min(positive, default=0)


def _in_turn(steps: Sequence[Any]) -> Any:
    return steps[0] if len(steps) == 1 else make_pipeline(*steps)


def _date_parts(dates: pd.DataFrame) -> FunctionTransformer:
    """Return a transformer to the parts that vary in a column."""
    varying = []
    for name in dates:
        parsed = parse_dates(dates[name]).dt
        varying.append([part for part in PARTS if getattr(parsed, part).nunique() > 1] or [PARTS[0]])
    return FunctionTransformer(date_parts, kw_args={"parts": varying})


def _target_encoder(params: TrainParams, folds: Sequence[tuple[Rows, Rows]]) -> TargetEncoder:
    """Return an encoder by labels, which encodes each row by the labels of other rows."""
    is_regression, seed = params.task == REGRESSION, params.random_state
    # With `auto`, whole numbers to predict would be classes, and each of them would get a column.
    task = "continuous" if is_regression else "auto"
    if tuple(map(int, sklearn.__version__.split(".")[:2])) < (1, 9):
        return TargetEncoder(target_type=task, random_state=seed)
    kind = KFold if is_regression else StratifiedKFold
    random = kind(5, shuffle=True, random_state=seed)
    return TargetEncoder(target_type=task, cv=list(folds) or random)


def forget_folds(pipeline: Pipeline) -> None:
    """Replace the positions of rows in a fitted pipeline by the number of folds."""
    parts = [pipeline]
    if isinstance(pipeline[0], ColumnTransformer):
        parts += [part for part in pipeline[0].named_transformers_.values() if isinstance(part, Pipeline)]
    for part in parts:
        for name, value in part.get_params().items():
            if name.rpartition("__")[2] == "cv" and isinstance(value, list):
                part.set_params(**{name: len(value)})
