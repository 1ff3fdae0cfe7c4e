"""Convert the fitted steps that prepare the columns of a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler, TargetEncoder

from registry_tools.data.dates import date_parts
from registry_tools.models.onnx.graph import ML, Graph
from registry_tools.models.onnx.other import convert_transformer
from registry_tools.models.onnx.rows import NotConvertible, Numbers, Rows, Texts, of_numbers


def convert_step(graph: Graph, step: Any, rows: Rows) -> Rows:
    """Add a fitted transformer to a graph, and return the rows after it.

    Raises
    ------
    NotConvertible
        If it, or one of its parts, has no equivalent in ONNX.
    """
    if step is None or (isinstance(step, str) and step == "passthrough"):
        return rows
    convert = _STEPS.get(type(step))
    if convert is not None:
        return convert(graph, step, rows)
    return of_numbers(*convert_transformer(graph, step, rows.numbers(graph), rows.width))


def _pipeline(graph: Graph, step: Pipeline, rows: Rows) -> Rows:
    for _, part in step.steps:
        rows = convert_step(graph, part, rows)
    return rows


def _column_transformer(graph: Graph, step: ColumnTransformer, rows: Rows) -> Rows:
    parts: list[Numbers | Texts] = []
    for _, part, columns in step.transformers_:
        if part == "drop" or (not isinstance(columns, (str, int, slice)) and not len(columns)):
            continue
        parts += convert_step(graph, part, rows.take(graph, columns)).parts
    return Rows(tuple(parts))


def _scaler(graph: Graph, step: StandardScaler, rows: Rows) -> Rows:
    value = rows.numbers(graph)
    if step.with_mean:
        value = graph.add("Sub", value, graph.constant(step.mean_[None]))
    if step.with_std:
        value = graph.add("Div", value, graph.constant(step.scale_[None]))
    return of_numbers(value, rows.width)


def _function(graph: Graph, step: FunctionTransformer, rows: Rows) -> Rows:
    if step.func is None:
        return rows
    if step.func is date_parts:
        raise NotConvertible("it has a column of dates, and ONNX has no operator that reads dates")
    raise NotConvertible(f"it has the Python function {getattr(step.func, '__name__', step.func)!r}")


def _imputer(graph: Graph, step: SimpleImputer, rows: Rows) -> Rows:
    if step.indicator_ is not None:
        raise NotConvertible("it has a SimpleImputer with add_indicator=True")
    if any(isinstance(part, Texts) for part in rows.parts):
        # Encoders look up the text for a missing value, so filling it needs no operator.
        pairs = zip(rows.texts(), step.statistics_, strict=True)
        return Rows(tuple(_filled(text, step.missing_values, fill) for text, fill in pairs), rows.names)
    if not pd.isna(step.missing_values):
        raise NotConvertible(f"it has a SimpleImputer with missing_values={step.missing_values!r}")
    value, statistics = rows.numbers(graph), np.asarray(step.statistics_, dtype=float)
    kept = np.flatnonzero(~np.isnan(statistics))
    if len(kept) < len(statistics):  # the imputer drops columns that were empty in the training rows
        value = graph.columns(value, kept)
    filled = graph.add("Where", graph.add("IsNaN", value), graph.constant(statistics[None, kept]), value)
    return of_numbers(filled, len(kept))


def _filled(text: Texts, missing_values: Any, fill: Any) -> Texts:
    """Return a column of text with its missing value filled, if that is one of those to fill."""
    is_filled = pd.isna(text.missing) and pd.isna(missing_values)
    return Texts(text.value, fill) if is_filled else text


def _one_hot(graph: Graph, step: OneHotEncoder, rows: Rows) -> Rows:
    if step.max_categories is not None or step.min_frequency is not None:
        raise NotConvertible("it has a OneHotEncoder with max_categories or min_frequency")
    found = []
    dropped = step.drop_idx_ if step.drop_idx_ is not None else [None] * len(step.categories_)
    for part, categories, drop in zip(_columns(graph, rows), step.categories_, dropped, strict=True):
        kept = [place for place in range(len(categories)) if place != drop]
        if isinstance(part, Texts):
            places = _positions(graph, part, categories)
            equal = graph.add("Equal", places, graph.constant([kept], np.int64))
        else:
            values = np.asarray(categories[kept], dtype=float)
            equal = graph.add("Equal", part.value, graph.constant(values[None]))
            if np.isnan(values).any():
                missing = graph.add(
                    "And", graph.add("IsNaN", part.value), graph.constant(np.isnan(values)[None], np.bool_)
                )
                equal = graph.add("Or", equal, missing)
        found.append(graph.cast(equal, np.float64))
    width = sum(len(names) for names in step.categories_) - sum(drop is not None for drop in dropped)
    return of_numbers(graph.join(found), width)


def _target(graph: Graph, step: TargetEncoder, rows: Rows) -> Rows:
    means = np.atleast_1d(step.target_mean_)
    found = []
    for number, part in enumerate(_columns(graph, rows)):
        if isinstance(part, Numbers):
            raise NotConvertible("it has a TargetEncoder of numbers")
        encodings = np.array(step.encodings_[number * len(means) : (number + 1) * len(means)]).T
        # A text that is no category has position -1: the last row of the table.
        table = graph.constant(np.vstack([encodings, means]))
        places = graph.flat(_positions(graph, part, step.categories_[number]))
        found.append(graph.add("Gather", table, places, axis=0))
    return of_numbers(graph.join(found), len(step.encodings_))


def _columns(graph: Graph, rows: Rows) -> list[Numbers | Texts]:
    """Return each column as a part of its own."""
    return [part for place in range(rows.width) for part in rows.take(graph, [place]).parts]


def _positions(graph: Graph, text: Texts, categories: npt.NDArray[Any]) -> str:
    """Add the position of each text among the categories, -1 for none; shape (rows, 1)."""
    places = {}
    for place, category in enumerate(categories):
        same = category == text.missing or (pd.isna(category) and pd.isna(text.missing))
        if category == "" and not same:
            raise NotConvertible(
                "a column of text has the category '', which the ONNX file reads as a missing text; train "
                "with another text for it"
            )
        if same:
            places[""] = place
        if not pd.isna(category):
            places[category] = place
    if not places:
        raise NotConvertible("a column of text has no category")
    return graph.add(
        "LabelEncoder",
        text.value,
        domain=ML,
        keys_strings=list(places),
        values_int64s=list(places.values()),
        default_int64=-1,
    )


_STEPS: Mapping[type, Callable[[Graph, Any, Rows], Rows]] = {
    Pipeline: _pipeline,
    ColumnTransformer: _column_transformer,
    StandardScaler: _scaler,
    FunctionTransformer: _function,
    SimpleImputer: _imputer,
    OneHotEncoder: _one_hot,
    TargetEncoder: _target,
}
