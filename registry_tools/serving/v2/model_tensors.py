"""The tensors that a version takes and returns, by its signature, its example and its estimator.

An output has the name of the method that returns it, `predict` or `predict_proba`. If `predict`
returns several columns, each is an output with the column's name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from sklearn.base import BaseEstimator, is_clusterer, is_outlier_detector

from registry_tools.errors import InputError
from registry_tools.inference.decoder import METHODS
from registry_tools.inference.predictor import Predictor
from registry_tools.serving.v2.tensors import BYTES, DTYPES, Tensor, datatype_of

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


_ANY_INPUT = TensorMetadata("input", "FP64", (-1, -1))  # of a version without a signature
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
        by_name = {tensor.name: tensor for tensor in declared} if method == "predict" else {}
        example = predictor.example_predictions.get(method)
        if example is not None:
            with contextlib.suppress(InputError):  # they are not tensors
                by_name = {
                    t.name: TensorMetadata(t.name, t.datatype, (-1, *t.values.shape[1:]))
                    for t in output_tensors(method, example, columns, by_name)
                }
        by_name = by_name or _by_estimator(predictor.estimator, method)
        outputs |= by_name
        methods |= dict.fromkeys(by_name, method)
    inputs = [_declared(entry, "input", (-1, 1)) for entry in predictor.info.inputs]
    return ModelTensors(inputs or [_ANY_INPUT], outputs, methods, columns)


def _declared(entry: Mapping[str, Any], default: str, shape: tuple[int, ...]) -> TensorMetadata:
    """Read a column or a tensor of a signature; one that the protocol has no type for is text."""
    name, kind = str(entry.get("name") or default), entry.get("type")
    datatype = _DATATYPES.get(kind, BYTES) if isinstance(kind, str) else BYTES
    with contextlib.suppress(LookupError, TypeError, ValueError):
        spec = entry["tensor-spec"]
        return TensorMetadata(name, datatype_of(np.dtype(spec["dtype"])), tuple(map(int, spec["shape"])))
    return TensorMetadata(name, datatype, shape)


def output_tensors(
    method: str, predictions: Any, columns: Sequence[str], outputs: Mapping[str, TensorMetadata]
) -> list[Tensor]:
    """Return the predictions of one method: a tensor, or one for each of several columns.

    Parameters
    ----------
    method, predictions
        A method, and its result as JSON.
    columns
        The names of columns that are lists without names.
    outputs
        The metadata of the outputs, whose datatypes the tensors have if they can hold the values.

    Raises
    ------
    InputError
        If the predictions are not tensors, such as lists of different lengths.
    """
    found = {method: predictions}
    first = predictions[0] if isinstance(predictions, list) and predictions else None
    if isinstance(predictions, dict):
        found = predictions
    elif isinstance(first, dict):
        found = {column: [row.get(column) for row in predictions] for column in first}
    elif method == "predict" and columns and isinstance(first, list) and len(first) == len(columns):
        found = dict(zip(columns, map(list, zip(*predictions, strict=True)), strict=True))
    if len(found) == 1 and not found.keys() & outputs.keys():
        found = dict.fromkeys([method], *found.values())
    try:
        return [
            Tensor(name, as_array(values, outputs[name].datatype if name in outputs else None))
            for name, values in found.items()
        ]
    except (ValueError, OverflowError):
        raise InputError(f"the predictions of {method} are not tensors; use /invocations") from None


def as_array(values: Any, datatype: str | None = None) -> np.ndarray[Any, Any]:
    """Return predictions as an array: of the datatype where it holds them, else of their own.

    Raises
    ------
    ValueError, OverflowError
        If they are not a tensor, such as lists of different lengths.
    """
    array = np.atleast_1d(np.array(values))
    dtype = DTYPES.get(datatype or "")
    if dtype is not None and array.dtype.kind != "U":
        with contextlib.suppress(ValueError, TypeError, OverflowError), np.errstate(all="ignore"):
            cast = array.astype(dtype)  # None is a missing value
            if dtype.kind == "f" or (cast == array).all():
                return cast
    if array.dtype.kind in "biuf":
        return array
    exact = np.atleast_1d(np.array(values, object))  # an array of texts drops their last NULs
    return np.vectorize(lambda value: "" if value is None else str(value), otypes=[object])(exact)


def _by_estimator(estimator: Any, method: str) -> dict[str, TensorMetadata]:
    """Return the output of a method of a version without an example."""
    classes = getattr(estimator, "classes_", None)
    is_list = isinstance(classes, list)  # an array for each of several outputs
    if method == "predict_proba":
        if is_list or not hasattr(estimator, method):
            return {}
        return {method: TensorMetadata(method, "FP64", (-1, -1 if classes is None else len(classes)))}
    if classes is not None:
        datatype = datatype_of(np.asarray(classes[0] if is_list else classes).dtype)
        return {method: TensorMetadata(method, datatype, (-1, len(classes)) if is_list else (-1,))}
    has_codes = isinstance(estimator, BaseEstimator) and (
        is_clusterer(estimator) or is_outlier_detector(estimator)
    )
    return {method: TensorMetadata(method, "INT64" if has_codes else "FP64", (-1,))}
