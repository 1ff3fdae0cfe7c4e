"""Rows converted to the schema of a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from registry_tools.data.coercion import coerce, values_from_text
from registry_tools.data.schema import Column, columns_of
from registry_tools.errors import InputError

COLUMNS = (
    Column("x", "double"),
    Column("n", "long"),
    Column("t", "string", required=False),
    Column("b", "boolean"),
)
ROW = {"x": 1.5, "n": 2, "t": "red", "b": True}


def test_rows_are_matched_by_name_in_any_order_or_by_position() -> None:
    by_name = coerce([dict(reversed(ROW.items()))], COLUMNS)
    by_position = coerce([list(ROW.values())], COLUMNS)
    frame = coerce(pd.DataFrame([ROW]).assign(more=1), COLUMNS)
    for table in (by_name, by_position, frame):
        assert list(table) == ["x", "n", "t", "b"]
        assert [str(kind) for kind in table.dtypes][:2] == ["float64", "int64"]
        assert table.iloc[0].tolist() == [1.5, 2, "red", True]


def test_an_array_is_matched_by_position() -> None:
    numbers = (Column("x", "double"), Column("y", "double"))
    assert coerce(np.array([[1, 2], [3, 4]]), numbers)["y"].tolist() == [2.0, 4.0]


def test_an_optional_column_may_be_missing() -> None:
    row = {key: value for key, value in ROW.items() if key != "t"}
    assert coerce([row], COLUMNS)["t"].isna().all()


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([{"x": 1.0, "n": 2}], "missing column 'b'; the rows have 'x', 'n'"),
        ([[1.0, 2, "red"]], "row 0 has 3 values, 4 are needed: 'x', 'n', 't', 'b'"),
        ([[1.0, 2, "red", True], [1.0]], "row 1 has 1 values"),
        ([1.0, 2.0], "row 0 is 1.0: expected a sequence of values"),
        ("1,2", "expected a sequence of rows, got str"),
        (np.array([1.0, 2.0]), r"array of shape \(2,\)"),
        ([ROW | {"x": "abc"}], "column 'x', row 0: 'abc' is not a number"),
        ([ROW, ROW | {"x": True}], "column 'x', row 1: True is not a number"),
        ([ROW | {"x": float("inf")}], "column 'x', row 0: inf is not a finite number"),
        ([ROW | {"n": 2.5}], "column 'n', row 0: .*2.5.* is not a whole number"),
        ([ROW | {"n": 2**70}], "column 'n', row 0: .* is not a whole number that long holds"),
        ([ROW | {"x": 10**400}], "column 'x', row 0: .* is not a finite number"),
        ([ROW | {"x": True}], "column 'x', row 0: True is not a number"),
        (pd.DataFrame([[1.0, 2.0]], columns=["x", "x"]), "column 'x' occurs twice"),
        ([ROW | {"t": 7}], "column 't', row 0: .*7.* is not text"),
        ([ROW | {"b": "yes"}], "column 'b', row 0: 'yes' is not true or false"),
    ],
)
def test_a_value_that_does_not_fit_is_named(rows: Any, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        coerce(rows, COLUMNS)


def test_a_signature_of_tensors_names_no_columns() -> None:
    assert columns_of([{"type": "tensor", "tensor-spec": {"dtype": "float64"}}]) is None
    assert columns_of(None) is None


def test_values_are_read_from_text_by_the_type_of_their_column() -> None:
    assert values_from_text(["1.5", " 2 ", "", "TRUE"], COLUMNS) == [1.5, 2, None, True]
    with pytest.raises(InputError, match="3 features given, 4 are needed"):
        values_from_text(["1", "2", "3"], COLUMNS)
    with pytest.raises(
        InputError, match="feature 'x': 'NA' is not a number; for a missing value, write nothing"
    ):
        values_from_text(["NA", "2", "", "true"], COLUMNS)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (pd.Series([2.0**63], dtype="Float64"), "long"),
        (pd.Series([2.0**31], dtype="Float32"), "integer"),
        (pd.Series([np.float64(2**63)], dtype=object), "long"),
        (pd.Series([-np.inf], dtype="float16"), "integer"),
        (pd.Series([np.complex128(1), "x"]), "long"),
    ],
)
def test_a_number_beyond_its_integer_column_is_refused(values: pd.Series, kind: str) -> None:
    with pytest.raises(InputError, match="column 'x', row"):
        coerce(pd.DataFrame({"x": values}), [Column("x", kind)])
