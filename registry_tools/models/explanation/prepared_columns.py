"""Transform rows by the fitted steps of a pipeline, and find the raw column behind each prepared column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
    TargetEncoder,
)

from registry_tools.data.dates import date_parts
from registry_tools.errors import UnsupportedOperation

Positions = npt.NDArray[np.intp]
# Not all with scikit-learn's OneToOneFeatureMixin: a Normalizer keeps the columns, and mixes their values.
_ONE_TO_ONE = (
    *(StandardScaler, MinMaxScaler, MaxAbsScaler, RobustScaler, PowerTransformer, QuantileTransformer),
    *(Binarizer, OrdinalEncoder, SimpleImputer),
)


def prepare(steps: Sequence[Any], rows: Any) -> tuple[Any, Positions]:
    """Transform rows by fitted steps.

    Parameters
    ----------
    steps
        Fitted transformers, in their order.
    rows
        The rows that the first step takes.

    Returns
    -------
    rows, sources
        The prepared rows, and for each of their columns the position of the column of `rows` that it
        is computed from.

    Raises
    ------
    UnsupportedOperation
        If a transformer computes a column from several others, or is unknown.
    """
    sources = np.arange(_width(rows))
    for step in steps:
        if step is None or isinstance(step, str):  # "passthrough"
            continue
        made = step.transform(rows)
        sources = sources[_inputs(step, rows, _width(made))]
        rows = made
    return rows, sources


def _width(rows: Any) -> int:
    return rows.shape[1] if rows.ndim == 2 else 1


def _inputs(step: Any, rows: Any, width: int) -> Positions:
    """Return for each column that a transformer makes the position of its input."""
    given = _width(rows)
    each = np.arange(given)
    if isinstance(step, Pipeline):
        return prepare([part for _, part in step.steps], rows)[1]
    if isinstance(step, ColumnTransformer):
        return _inputs_of_parts(step, rows, width)
    counts: Any = None  # columns that each input becomes
    if given == 1:
        counts = width
    elif isinstance(step, OneHotEncoder):
        dropped = step.drop_idx_ if step.drop_idx_ is not None else [None] * given
        pairs = zip(step.categories_, dropped, strict=True)
        counts = [len(categories) - (drop is not None) for categories, drop in pairs]
    elif isinstance(step, TargetEncoder):  # a column for each of more than two classes
        counts = width // given
    elif isinstance(step, FunctionTransformer) and step.func is date_parts:
        counts = [len(parts) for parts in step.kw_args["parts"]]
    elif hasattr(step, "get_support"):
        return np.flatnonzero(step.get_support())
    elif _is_one_to_one(step):
        counts = 1
    if counts is None or np.sum(np.broadcast_to(counts, given)) != width:
        raise UnsupportedOperation(
            f"has a {type(step).__name__}, whose results cannot be traced to single columns: contributions "
            "need transformers that compute each result from one column, such as scalers and encoders"
        )
    return np.repeat(each, counts)


def _is_one_to_one(step: Any) -> bool:
    if isinstance(step, FunctionTransformer):
        return step.func is None  # a column that passes unchanged
    return isinstance(step, _ONE_TO_ONE)


def _inputs_of_parts(step: ColumnTransformer, rows: Any, width: int) -> Positions:
    table = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(rows)
    by_name = pd.Series(np.arange(table.shape[1]), index=table.columns)
    sources = np.empty(width, dtype=np.intp)
    for name, part, columns in step.transformers_:
        span = step.output_indices_[name]
        if span.start == span.stop:
            continue
        is_one = isinstance(columns, (str, int))
        listed = [columns] if is_one else list(columns) if not isinstance(columns, slice) else [columns.start]
        find = by_name.loc if isinstance(listed[0], str) else by_name.iloc
        positions = np.atleast_1d(np.asarray(find[columns]))
        taken = table.iloc[:, positions[0] if is_one else positions]
        taken = taken if isinstance(rows, pd.DataFrame) else taken.to_numpy()
        sources[span] = positions[prepare([part], taken)[1]]
    return sources
