"""What a batch of rows is taken for: types, holes, and the rows that cannot be scored."""

from __future__ import annotations

import random
import string
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from registry_tools.batch.engines.predictions import coerced_frame
from registry_tools.batch.validation.columns import arrow_of, check, check_schema
from registry_tools.batch.writers.parquet_copy import Carrier, alike, footer
from registry_tools.batch.writers.thrift import Reader, written
from registry_tools.data.coercion import coerce
from registry_tools.data.schema import Column
from registry_tools.errors import InputError

ALL = (
    Column("double", "double", required=False),
    Column("float", "float"),
    Column("long", "long"),
    Column("integer", "integer"),
    Column("holes", "long", required=False),
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
        "holes": [1, None, 3],
        "flag": [True, False, True],
        "maybe": [True, None, False],
        "text": ["007", None, "a,b"],
    }
)


def checked(values: list[Any], column: Column, text: bool = False, kind: Any = None) -> Any:
    batch = pa.RecordBatch.from_pydict({column.name: pa.array(values, kind)})
    return check(batch, [column], text)


def test_checked_rows_are_the_frame_that_predict_would_make() -> None:
    found = check(ROWS.to_batches()[0], ALL, text=False)
    assert found.bad == {}
    pd.testing.assert_frame_equal(
        coerced_frame(found, ALL), coerce(ROWS.to_pandas(types_mapper=None), ALL)
    )


def test_the_text_of_a_csv_is_what_the_signature_says() -> None:
    text = pa.RecordBatch.from_pydict(
        {
            "double": ["1.5", "NA", " 3 "],
            "float": ["0.1", "0.2", "0.3"],
            "long": ["1", "2", str(1 << 60)],
            "integer": ["1.0", "2", "3e0"],
            "holes": ["1", "", "3"],
            "flag": ["True", "false", "TRUE"],
            "maybe": ["true", "", "False"],
            "text": ["007", "", "a,b"],
        }
    )
    found = check(text, ALL, text=True)
    assert found.bad == {}
    for column in ALL:
        plain = check(ROWS.to_batches()[0], ALL, text=False)
        assert arrow_of(found, column).equals(arrow_of(plain, column)), column


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
def test_a_row_that_cannot_be_scored_says_why(
    values: list[Any], column: Column, text: bool, bad: dict[int, str]
) -> None:
    found = checked(values, column, text)
    assert found.bad.keys() == bad.keys()
    for row, reason in bad.items():
        assert reason in found.bad[row]
        assert "column 'x'" in found.bad[row]
    assert len(found.without_bad().arrays["x"]) == len(values) - len(bad)


BIG = (1 << 53) + 1  # no float


@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize("beside", ["3.0", "1e3", " 4 ", "+5", "", "wide", "6."])
def test_a_whole_number_in_text_stays_what_it_is_whatever_stands_beside(
    beside: str, required: bool
) -> None:
    column = Column("x", "long", required)
    found = checked([str(BIG), beside, str(-BIG), f"{BIG}.0", "9007199254740993e0"], column, True)
    good = found.without_bad()
    written = arrow_of(good, column)
    assert written.type == pa.int64()
    read = {"3.0": [3], "1e3": [1000], " 4 ": [4], "+5": [5], "6.": [6]}.get(beside)
    middle = read or ([None] if beside == "" and not required else [])
    assert written.to_pylist() == [BIG, *middle, -BIG, BIG, BIG]
    assert len(found.bad) == (not middle)


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
def test_text_that_is_no_whole_number_is_refused_beside_a_hole_as_well(
    value: str, reason: str
) -> None:
    column = Column("x", "long", required=False)
    found = checked(["1", "", value], column, text=True)
    assert found.bad == {2: f"column 'x': {value!r} is not {reason}"}
    assert arrow_of(found.without_bad(), column).to_pylist() == [1, None]


def test_a_number_of_another_width_is_refused_beside_a_hole_as_well() -> None:
    column = Column("x", "integer", required=False)
    for values, text in (([1, None, 1 << 40], False), (["1", "", str(1 << 40)], True)):
        assert list(checked(values, column, text).bad) == [2]
    assert list(checked([1.0, None, 1e30], column).bad) == [2]


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


def parquet(path: Path, table: pa.Table, **options: Any) -> str:
    pq.write_table(table, path, **options)
    return str(path)


def odd_table(seed: int) -> pa.Table:
    random.seed(seed)
    rows = 1000
    return pa.table(
        {
            "text": ["".join(random.choices(string.printable, k=5)) for _ in range(rows)],
            "at": pa.array(range(rows), pa.timestamp("us", "Europe/Berlin")),
            "kind": pa.array(random.choices(["a", "b", None], k=rows)).dictionary_encode(),
            "nested": [{"x": [n, None], "y": {"z": str(n)}} for n in range(rows)],
            "price": pa.array([Decimal(n) / 4 for n in range(rows)], pa.decimal128(9, 2)),
            "none": pa.nulls(rows),
        }
    ).replace_schema_metadata({"mine": "kept"})


def carried(paths: list[str], target: Path) -> pa.Table:
    """Carry files over into one with two columns added; return what the others hold there."""
    footers = alike([footer(path) for path in paths])
    assert footers is not None
    written_schema = pq.read_schema(paths[0])
    carrier = Carrier(target, footers[0])
    for one in footers:
        for place in range(len(one.groups)):
            rows = one.rows_of(place)
            added = {"answer": pa.array(["x"] * rows, pa.string()).dictionary_encode()}
            added["n"] = pa.array([7] * rows, pa.int64())
            part = parquet(target.with_name("part.parquet"), pa.table(added))
            carrier.add(one, place, Path(part))
    carrier.finish(
        pa.schema(
            [*written_schema, pa.field("answer", pa.string()), pa.field("n", pa.int64())],
            metadata=written_schema.metadata,
        )
    )
    carrier.close()
    found = pq.read_table(target)
    assert set(found["answer"].to_pylist()) <= {"x"}
    assert found.schema.field("answer").type == pa.string()
    assert set(found["n"].to_pylist()) <= {7}
    return found.drop(["answer", "n"])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zstd", "row_group_size": 300},
        {"use_dictionary": False, "compression": "none", "write_page_index": True},
        {"version": "1.0", "data_page_version": "2.0", "store_schema": False},
    ],
)
def test_columns_that_are_carried_over_are_as_they_were(
    options: dict[str, Any], tmp_path: Path
) -> None:
    table = odd_table(1)
    paths = [parquet(tmp_path / f"{n}.parquet", table.slice(n), **options) for n in range(2)]
    wanted = pa.concat_tables([pq.read_table(path) for path in paths])
    found = carried(paths, tmp_path / "out.parquet")
    assert found.num_rows == wanted.num_rows
    assert found.equals(wanted, check_metadata=True)


@pytest.mark.parametrize("dictionary", [True, False])
def test_a_row_group_without_rows_is_carried_over(dictionary: bool, tmp_path: Path) -> None:
    table = pa.table({"x": [1.5, 2.5], "text": ["a", "b"]})
    some = parquet(tmp_path / "some.parquet", table, use_dictionary=dictionary)
    none = parquet(tmp_path / "none.parquet", table.slice(0, 0), use_dictionary=dictionary)
    assert pq.ParquetFile(none).num_row_groups == 1
    for number, paths in enumerate([[none], [none, some], [some, none, some]]):
        wanted = pa.concat_tables([pq.read_table(path) for path in paths])
        assert carried(paths, tmp_path / f"out-{number}.parquet").equals(wanted)


def test_a_footer_is_written_as_it_was_read(tmp_path: Path) -> None:
    path = Path(parquet(tmp_path / "a.parquet", odd_table(2), row_group_size=50))
    content = path.read_bytes()
    size = int.from_bytes(content[-8:-4], "little")
    raw = content[-8 - size : -8]
    assert written(Reader(raw).struct()) == raw


def test_files_of_another_form_are_not_carried_over(tmp_path: Path) -> None:
    one = parquet(tmp_path / "a.parquet", pa.table({"x": [1]}))
    other = parquet(tmp_path / "b.parquet", pa.table({"x": pa.array([1], pa.int32())}))
    assert alike([footer(one), footer(other)]) is None
    torn = tmp_path / "torn.parquet"
    torn.write_bytes(Path(one).read_bytes()[:-9] + b"\xff" * 5 + b"PAR1")
    assert footer(str(torn)) is None
