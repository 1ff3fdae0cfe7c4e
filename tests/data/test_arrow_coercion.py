"""The columns of a batch: types, missing values, and the rows that cannot be scored."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from registry_tools.data.arrow_coercion import check_schema, coerce_batch, to_arrow, to_frame
from registry_tools.data.coerced_batch import CoercedBatch
from registry_tools.data.coercion import coerce
from registry_tools.data.schema import Column
from registry_tools.errors import InputError

ALL = (
    Column("double", "double", required=False),
    Column("float", "float"),
    Column("long", "long"),
    Column("integer", "integer"),
    Column("missing", "long", required=False),
    Column("flag", "boolean"),
    Column("maybe", "boolean", required=False),
    Column("text", "string", required=False),
)
ROWS = pa.table(
    {
        "double": [1.5, None, 3.0],
        "float": [0.1, 0.2, 0.3],
        "long": [1, 2, 1 << 60],
        "integer": pa.array([1.0, 2.0, 3.0]),
        "missing": [1, None, 3],
        "flag": [True, False, True],
        "maybe": [True, None, False],
        "text": ["007", None, "a,b"],
    }
)


def without_faults(batch: CoercedBatch) -> CoercedBatch:
    return batch.keep_rows(~np.isin(np.arange(batch.rows), list(batch.faults)))


def coerced(values: list[Any], column: Column, text: bool = False, kind: Any = None) -> Any:
    batch = pa.RecordBatch.from_pydict({column.name: pa.array(values, kind)})
    return coerce_batch(batch, [column], text)


def test_coerced_rows_are_the_frame_that_predict_would_make() -> None:
    found = coerce_batch(ROWS.to_batches()[0], ALL, text=False)
    assert found.faults == {}
    pd.testing.assert_frame_equal(to_frame(found, ALL), coerce(ROWS.to_pandas(types_mapper=None), ALL))


def test_csv_text_is_converted_to_the_types_of_the_signature() -> None:
    text = pa.RecordBatch.from_pydict(
        {
            "double": ["1.5", "NA", " 3 "],
            "float": ["0.1", "0.2", "0.3"],
            "long": ["1", "2", str(1 << 60)],
            "integer": ["1.0", "2", "3e0"],
            "missing": ["1", "", "3"],
            "flag": ["True", "false", "TRUE"],
            "maybe": ["true", "", "False"],
            "text": ["007", "", "a,b"],
        }
    )
    found = coerce_batch(text, ALL, text=True)
    assert found.faults == {}
    for column in ALL:
        plain = coerce_batch(ROWS.to_batches()[0], ALL, text=False)
        assert to_arrow(found, column).equals(to_arrow(plain, column)), column


@pytest.mark.parametrize(
    ("values", "column", "text", "bad"),
    [
        (["1", "abc"], Column("x", "double"), True, {1: "'abc' is not a number"}),
        (["1_000"], Column("x", "double"), True, {0: "'1_000' is not a number"}),
        (["1", "inf"], Column("x", "double"), True, {1: "'inf' is not a finite number"}),
        (["1", ""], Column("x", "double"), True, {1: "missing value"}),
        ([1.0, np.nan], Column("x", "double"), False, {1: "missing value"}),
        ([-np.inf, 1.0], Column("x", "double"), False, {0: "-inf is not a finite number"}),
        ([1e300], Column("x", "float"), False, {0: "1e+300 is not a finite number"}),
        ([1.5, 2.0], Column("x", "long"), False, {0: "1.5 is not a whole number"}),
        ([1 << 40], Column("x", "integer"), False, {0: "is not a whole number that integer holds"}),
        (["1.5", "7"], Column("x", "long"), True, {0: "'1.5' is not a whole number"}),
        ([1, None, 3], Column("x", "long"), False, {1: "missing value"}),
        ([2.5, None], Column("x", "long", required=False), False, {0: "2.5 is not a whole"}),
        (["yes", "true"], Column("x", "boolean"), True, {0: "'yes' is not true or false"}),
        ([True, None], Column("x", "boolean"), False, {1: "missing value"}),
        (["a", None], Column("x", "string"), False, {1: "missing value"}),
        ([Decimal("1.5")], Column("x", "double"), False, {}),
        (["", "x"], Column("x", "string"), True, {0: "missing value"}),
        ([None, None], Column("x", "double", required=False), False, {}),
    ],
)
def test_a_row_that_cannot_be_scored_has_a_reason(
    values: list[Any], column: Column, text: bool, bad: dict[int, str]
) -> None:
    found = coerced(values, column, text)
    assert found.reasons.keys() == bad.keys()
    for row, reason in bad.items():
        assert reason in found.reasons[row]
        assert "column 'x'" in found.reasons[row]
    assert len(without_faults(found).arrays["x"]) == len(values) - len(bad)


BIG = (1 << 53) + 1  # no float


@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize("beside", ["3.0", "1e3", " 4 ", "+5", "", "wide", "6."])
def test_a_whole_number_in_text_keeps_its_value_beside_any_other(beside: str, required: bool) -> None:
    column = Column("x", "long", required)
    found = coerced([str(BIG), beside, str(-BIG), f"{BIG}.0", "9007199254740993e0"], column, True)
    good = without_faults(found)
    written = to_arrow(good, column)
    assert written.type == pa.int64()
    read = {"3.0": [3], "1e3": [1000], " 4 ": [4], "+5": [5], "6.": [6]}.get(beside)
    middle = read or ([None] if beside == "" and not required else [])
    assert written.to_pylist() == [BIG, *middle, -BIG, BIG, BIG]
    assert len(found.faults) == (not middle)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("9223372036854775808", "a whole number that long holds"),
        ("9007199254740993.5", "a whole number that long holds"),
        ("1e-99999999999999999999999", "a whole number that long holds"),
        ("1e30", "a whole number that long holds"),
        ("1e999", "a finite number"),
        ("1_000", "a number"),
    ],
)
def test_text_that_is_no_whole_number_is_refused_beside_a_missing_value_as_well(
    value: str, reason: str
) -> None:
    column = Column("x", "long", required=False)
    found = coerced(["1", "", value], column, text=True)
    assert found.reasons == {2: f"column 'x': {value!r} is not {reason}"}
    assert to_arrow(without_faults(found), column).to_pylist() == [1, None]


def test_a_number_of_another_width_is_refused_beside_a_missing_value_as_well() -> None:
    column = Column("x", "integer", required=False)
    for values, text in (([1, None, 1 << 40], False), (["1", "", str(1 << 40)], True)):
        assert list(coerced(values, column, text).faults) == [2]
    assert list(coerced([1.0, None, 1e30], column).faults) == [2]


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"x": pa.string()}, "column 'x' holds string, and the model takes double"),
        ({"x": pa.bool_()}, "column 'x' holds bool"),
        ({"y": pa.float64()}, "missing column 'x'; the file has 'y'"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_its_schema(schema: Any, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        check_schema(pa.schema(schema), [Column("x", "double")], "rows.parquet", text=False)
