"""The fast path decodes plain numbers, and leaves every other body to MLflow's code before it allocates."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import orjson
import pytest

from registry_tools.data.schema import Column
from registry_tools.inference.decoder import NumericSchema, decode_json

SCHEMA = NumericSchema.of([Column("a", "double"), Column("b", "double")])
SPLIT = {"columns": ["a", "b"], "data": [[1, 2.5], [3, None]]}
TEXT = "x" * 1_000


@pytest.mark.parametrize(
    "content",
    [
        {"dataframe_split": SPLIT},
        {"dataframe_split": {**SPLIT, "index": [7, 8]}, "params": {}},
        {"dataframe_split": {"columns": ["b", "more", "a"], "data": [[2.5, 0, 1], [None, 0, 3]]}},
        {"instances": [{"b": 2.5, "a": 1}, {"a": 3, "b": None}], "params": None},
    ],
)
def test_plain_numbers_become_a_matrix_in_the_order_of_the_signature(content: Any) -> None:
    matrix, method = decode_json(orjson.dumps(content), SCHEMA, frozenset())
    assert method == "predict"
    np.testing.assert_array_equal(matrix, [[1, 2.5], [3, np.nan]])


def test_the_method_is_taken_unless_the_model_declares_it() -> None:
    body = orjson.dumps({"dataframe_split": SPLIT, "params": {"method": "predict_proba"}})
    matrix, method = decode_json(body, SCHEMA, frozenset())
    assert matrix is not None
    assert method == "predict_proba"
    assert decode_json(body, SCHEMA, frozenset({"method"}))[0] is None


@pytest.mark.parametrize(
    "content",
    [
        {"dataframe_split": {"columns": ["a", "b"], "data": [[TEXT, 1], *[[1, 1]] * 20_000]}},
        {"dataframe_split": {"columns": ["a", "b", 1], "data": [[TEXT, 1, 1], *[[1, 1, 1]] * 20_000]}},
        {"dataframe_split": {"columns": ["a", "b"], "data": [[TEXT, 1]] * 9, "more": 1}},
        {"inputs": [{"a": TEXT, "b": 1}, *[{"a": 1, "b": 1}] * 20_000]},
        {"inputs": [{"a": TEXT, "b": 1}, {"a": 1}, *[{"a": 1, "b": 1}] * 20_000]},
    ],
)
def test_one_long_text_among_numbers_is_left_to_mlflow_before_numpy_pads_every_value(content: Any) -> None:
    body = orjson.dumps(content)
    tracemalloc.start()
    try:
        assert decode_json(body, SCHEMA, frozenset())[0] is None
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()
