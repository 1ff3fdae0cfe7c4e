"""The tensors that a version takes and returns, by its signature, its example and its estimator.

An output has the name of the method that returns it, `predict` or `predict_proba`. Where `predict`
returns a table, each column is an output with the column's name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from sklearn.base import BaseEstimator, is_clusterer, is_outlier_detector

from registry_tools.inference.predictor import METHODS, Predictor
from registry_tools.serving.v2.tensors import BYTES, DTYPES, datatype_of

# The datatypes of MLflow's column types; the other types are sent as texts.
_DATATYPES = {"boolean": "BOOL", "integer": "INT32", "long": "INT64", "float": "FP32", "double": "FP64"}


@dataclass(frozen=True)
class TensorMetadata:
    """The metadata of a tensor; a length that is not fixed is -1."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ModelTensors:
    """The tensors of one version."""

    inputs: list[TensorMetadata]
    outputs: dict[str, TensorMetadata]
    methods: dict[str, str]  # the method that returns each output
    columns: tuple[str, ...]  # the names of several outputs in the signature


_described: WeakKeyDictionary[Predictor, ModelTensors] = WeakKeyDictionary()


def model_tensors(predictor: Predictor) -> ModelTensors:
    """Return the tensors of a version, which are determined once."""
    found = _described.get(predictor)
    if found is None:
        found = _described[predictor] = _describe(predictor)
    return found


def _describe(predictor: Predictor) -> ModelTensors:
    declared = [_declared(entry, "predict", (-1,)) for entry in predictor.info.outputs]
    columns = tuple(tensor.name for tensor in declared) if len(declared) > 1 else ()
    if len(declared) == 1:  # its name may be that of the target
        declared = [replace(declared[0], name="predict")]
    outputs: dict[str, TensorMetadata] = {}
    methods: dict[str, str] = {}
    for method in METHODS:
        example = predictor.example_predictions.get(method)
        if example is not None:
            found = _of_example(method, example, declared if method == "predict" else [], columns)
        elif method == "predict":
            found = declared or [_predictions_of(predictor.estimator)]
        else:
            found = _probabilities_of(predictor.estimator)
        for tensor in found:
            outputs[tensor.name] = tensor
            methods[tensor.name] = method
    return ModelTensors(_inputs(predictor), outputs, methods, columns)


def _declared(entry: Mapping[str, Any], default: str, shape: tuple[int, ...]) -> TensorMetadata:
    """Read a column or a tensor of a signature; one that the protocol has no type for is text."""
    name, kind = str(entry.get("name") or default), entry.get("type")
    datatype = _DATATYPES.get(kind, BYTES) if isinstance(kind, str) else BYTES
    with contextlib.suppress(LookupError, TypeError, ValueError):
        spec = entry["tensor-spec"]
        return TensorMetadata(name, datatype_of(np.dtype(spec["dtype"])), tuple(map(int, spec["shape"])))
    return TensorMetadata(name, datatype, shape)


def _inputs(predictor: Predictor) -> list[TensorMetadata]:
    entries = predictor.info.inputs
    return [_declared(entry, "input", (-1, 1)) for entry in entries] or [
        TensorMetadata("input", "FP64", (-1, -1))
    ]


def split_outputs(method: str, predictions: Any, columns: Sequence[str]) -> dict[str, Any]:
    """Return the predictions of one method by output: a table has an output for each column."""
    if isinstance(predictions, dict):
        return predictions
    first = predictions[0] if isinstance(predictions, list) and predictions else None
    if isinstance(first, dict):
        return {column: [row.get(column) for row in predictions] for column in first}
    if method == "predict" and columns and isinstance(first, list) and len(first) == len(columns):
        return dict(zip(columns, map(list, zip(*predictions, strict=True)), strict=True))
    return {method: predictions}


def as_array(values: Any, datatype: str | None = None) -> np.ndarray[Any, Any]:
    """Return predictions as an array: of the datatype where it holds them, else of their own.

    Raises
    ------
    ValueError, OverflowError
        If they are not a tensor, such as lists of different lengths.
    """
    array = np.atleast_1d(np.array(values))
    dtype = DTYPES.get(datatype or "")
    if dtype is not None and np.can_cast(array.dtype, dtype, "same_kind"):
        with np.errstate(over="ignore"):
            cast = array.astype(dtype)
        if dtype.kind == "f" or (cast == array).all():
            return cast
    if array.dtype == object and dtype is not None and dtype.kind == "f":
        with contextlib.suppress(ValueError, TypeError):
            return array.astype(dtype)  # None is a missing value
    if array.dtype.kind in "biuf":
        return array
    exact = np.atleast_1d(np.array(values, object))  # an array of texts drops their last NULs
    return np.vectorize(lambda value: "" if value is None else str(value), otypes=[object])(exact)


def _of_example(
    method: str, example: Any, declared: Sequence[TensorMetadata], columns: Sequence[str]
) -> list[TensorMetadata]:
    """Return the outputs of the predictions for the example, with the datatypes of the signature."""
    datatypes = {tensor.name: tensor.datatype for tensor in declared}
    only = declared[0].datatype if len(declared) == 1 else None
    found = []
    for name, values in split_outputs(method, example, columns).items():
        array = as_array(values, datatypes.get(name, only))
        found.append(TensorMetadata(name, datatype_of(array.dtype), (-1, *array.shape[1:])))
    return found


def _predictions_of(estimator: Any) -> TensorMetadata:
    classes = getattr(estimator, "classes_", None)
    if isinstance(classes, list):  # an array for each of several outputs
        return TensorMetadata("predict", datatype_of(np.asarray(classes[0]).dtype), (-1, len(classes)))
    if classes is not None:
        return TensorMetadata("predict", datatype_of(np.asarray(classes).dtype), (-1,))
    codes = isinstance(estimator, BaseEstimator) and (
        is_clusterer(estimator) or is_outlier_detector(estimator)
    )
    return TensorMetadata("predict", "INT64" if codes else "FP64", (-1,))


def _probabilities_of(estimator: Any) -> list[TensorMetadata]:
    classes = getattr(estimator, "classes_", None)
    if not hasattr(estimator, "predict_proba") or isinstance(classes, list):
        return []
    return [TensorMetadata("predict_proba", "FP64", (-1, -1 if classes is None else len(classes)))]
