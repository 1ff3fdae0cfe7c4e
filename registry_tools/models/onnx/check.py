"""Compare an ONNX file with the model that it was made from, on held-out rows and at the boundaries.

The boundary rows come from pairs of held-out rows with different labels. Bisection moves both towards each
other until they are almost equal but still have different labels. There, the smallest error of an export
changes a label.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from threadpoolctl import threadpool_limits

from registry_tools.data.coercion import coerce, coerce_tensor
from registry_tools.data.schema import TensorSchema
from registry_tools.errors import UnsupportedOperation
from registry_tools.models.loaded_model import LoadedModel
from registry_tools.models.onnx.comparison import OnnxCheck
from registry_tools.models.onnx.convert import CLASS_NAME, PREDICTION, PROBABILITIES, ROWS, takes_numbers_only

BOUNDARY_ROWS = 800  # two for each pair
_BISECTIONS = 30  # halvings of the distance of a pair: to a thousand-millionth
_PAIRS_FROM = 20_000  # random pairs of rows, of which those with different labels are bisected
_BATCH = 1000
# Runtimes may sum in another order for a single row, so these many rows of each table are also run alone.
_SINGLE_ROWS = 100
_PROBABILITY_TOLERANCE = 1e-6
_NUMBER_TOLERANCE = 1e-5  # of the largest number: XGBoost sums its trees in float32


def check_onnx(model: LoadedModel, content: bytes, holdout: pd.DataFrame) -> OnnxCheck:
    """Compare an ONNX file with a loaded version on rows of its holdout, and at its boundaries.

    Parameters
    ----------
    model
        The loaded version.
    content
        The ONNX file.
    holdout
        The held-out rows, shape (rows, columns).

    Raises
    ------
    UnsupportedOperation
        If the extra `onnx` is not installed, or ONNX Runtime cannot run the file.
    """
    # The check predicts often, and threads that wait for each other would make it slow on a busy machine.
    with threadpool_limits(1, "openmp"):
        return _check(model, content, holdout)


def _check(model: LoadedModel, content: bytes, holdout: pd.DataFrame) -> OnnxCheck:
    session = open_session(content)
    rows = _typed(model, holdout)
    expected = model.predict(rows)
    if not hasattr(model.estimator, "classes_"):
        numbers = run(session, model, rows)[PREDICTION]
        tolerance = _NUMBER_TOLERANCE * float(np.max(np.abs(expected), initial=0.0))
        gaps = np.abs(numbers - expected)
        differing = int(np.sum(~(gaps <= tolerance)))
        return OnnxCheck(len(rows), 0, differing, float(gaps.max()), tolerance, len(content))
    boundary = boundary_rows(model, rows, expected)
    differing, gap = 0, 0.0
    for table in (rows, boundary):
        if len(table):
            wrong, distance = differences(session, model, table)
            differing, gap = differing + int(wrong.sum()), max(gap, distance)
    return OnnxCheck(len(rows), len(boundary), differing, gap, _PROBABILITY_TOLERANCE, len(content))


def open_session(content: bytes) -> Any:
    """Return a session of ONNX Runtime with a file.

    Raises
    ------
    UnsupportedOperation
        If `onnxruntime` is not installed, or cannot run the file.
    """
    try:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as errors
    except ModuleNotFoundError as error:
        raise UnsupportedOperation(
            f"the ONNX export needs the extra `onnx` ({error.name} is not installed): "
            "pip install 'registry-pipeline[onnx]'"
        ) from error
    options = onnxruntime.SessionOptions()
    # Its threads would keep the cores busy while scikit-learn predicts.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except (errors.Fail, errors.NotImplemented, errors.InvalidGraph, errors.InvalidArgument) as error:
        raise UnsupportedOperation(f"ONNX Runtime cannot run the file: {str(error)[:200]}") from error


def differences(session: Any, model: LoadedModel, rows: Any) -> tuple[npt.NDArray[np.bool_], float]:
    """Return a mask of rows with another label, and the largest difference of probabilities."""
    expected, made = model.predict(rows), run(session, model, rows)
    wrong = made[PREDICTION] != expected
    if CLASS_NAME in made:
        wrong |= made[CLASS_NAME] != model.names_of(expected)
    feed = _feed(model, rows)
    for place in range(min(len(rows), _SINGLE_ROWS)):
        single = {name: values[place : place + 1] for name, values in feed.items()}
        wrong[place] |= session.run([PREDICTION], single)[0][0] != expected[place]
    if PROBABILITIES not in made:
        return wrong, 0.0
    return wrong, float(np.max(np.abs(made[PROBABILITIES] - model.predict_proba(rows))))


def run(session: Any, model: LoadedModel, rows: Any) -> Mapping[str, npt.NDArray[Any]]:
    """Return the outputs of an ONNX file for typed rows, by name."""
    names = [output.name for output in session.get_outputs()]
    batches = [
        session.run(names, _feed(model, rows[start : start + _BATCH]))
        for start in range(0, len(rows), _BATCH)
    ]
    return {name: np.concatenate(parts) for name, *parts in zip(names, *batches, strict=True)}


def _feed(model: LoadedModel, rows: Any) -> dict[str, npt.NDArray[Any]]:
    """Return rows as the inputs of the ONNX file; a missing text is empty."""
    columns = model.info.signature
    if columns is None or takes_numbers_only(columns):
        values = rows if columns is None else rows.astype("float64")
        return {ROWS: np.ascontiguousarray(values, dtype=np.float64)}
    feed = {}
    for column in columns:
        values = rows[column.name]
        if column.type == "string":
            texts = values.astype(object).where(values.notna(), "").to_numpy(object)
            feed[column.name] = texts[:, None]
        else:
            feed[column.name] = values.astype("float64").to_numpy()[:, None]
    return feed


def _typed(model: LoadedModel, rows: pd.DataFrame) -> Any:
    tensor = model.info.tensor
    if isinstance(tensor, TensorSchema):
        return coerce_tensor(rows.to_numpy(), tensor)
    return coerce(rows, model.info.signature)


def boundary_rows(model: LoadedModel, rows: Any, labels: npt.NDArray[Any], count: int = BOUNDARY_ROWS) -> Any:
    """Return pairs of almost equal rows with different labels; at most `count` rows.

    Only numbers move. Text, booleans and missing values are those of the first row of a pair. Rows without
    moving columns, or with one label only, have no boundary.
    """
    generator = np.random.default_rng(0)
    one, two = generator.integers(0, len(rows), (2, _PAIRS_FROM))
    differ = labels[one] != labels[two]
    one, two = one[differ][: count * 4], two[differ][: count * 4]
    if not len(one):
        return rows[:0]
    near, far = _take(rows, one), _moved(model, _take(rows, one), _take(rows, two), 1.0)
    near_labels = labels[one]
    kept = np.flatnonzero(model.predict(far) != near_labels)[: count // 2]  # text alone may decide
    if not len(kept):
        return rows[:0]
    near, far, near_labels = _take(near, kept), _take(far, kept), near_labels[kept]
    for _ in range(_BISECTIONS):
        middle = _moved(model, near, far, 0.5)
        same = model.predict(middle) == near_labels
        near, far = _where(same, middle, near), _where(same, far, middle)
    return _joined(near, far)


def _take(rows: Any, places: npt.NDArray[Any]) -> Any:
    return rows[places] if isinstance(rows, np.ndarray) else rows.iloc[places].reset_index(drop=True)


def _where(mask: npt.NDArray[np.bool_], yes: Any, no: Any) -> Any:
    """Return the rows of one table where a mask is true, and those of another elsewhere."""
    places = np.arange(len(mask))
    return _take(_joined(yes, no), np.where(mask, places, places + len(mask)))


def _joined(one: Any, two: Any) -> Any:
    return np.concatenate([one, two]) if isinstance(one, np.ndarray) else pd.concat([one, two])


def _moved(model: LoadedModel, start: Any, end: Any, share: float) -> Any:
    """Return rows between two tables; whole numbers stay whole."""
    if isinstance(start, np.ndarray):
        moved = start + share * (end - start)
        return (moved if start.dtype.kind == "f" else np.round(moved)).astype(start.dtype)
    moved = start.copy()
    for column in model.info.signature or ():
        if column.type not in ("double", "float", "long", "integer"):
            continue
        first, last = (table[column.name].to_numpy("float64", na_value=np.nan) for table in (start, end))
        values = np.where(np.isnan(first) | np.isnan(last), first, first + share * (last - first))
        if column.type in ("long", "integer"):
            values = np.round(values)
        moved[column.name] = pd.Series(values, index=moved.index).astype(start[column.name].dtype)
    return moved
