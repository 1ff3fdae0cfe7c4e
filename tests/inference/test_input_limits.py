"""A small body that stands for a large table is refused before the table is allocated."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from registry_tools.errors import InputError, InputTooLarge
from registry_tools.inference.input_limits import InputLimits, check_csv, check_json, read_parquet

LIMITS = InputLimits(rows=200_000, decoded=16 << 20)
LONG = "x" * 100_000
POOLS: list[Any] = []  # Arrow may free memory of a pool after the test: a pool lives as long as the process
REPEATED = pa.DictionaryArray.from_arrays(pa.array([0] * 2_000), pa.array([LONG]))


def parquet(columns: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file, compression="zstd", store_schema=False)
    return file.getvalue()


@pytest.mark.parametrize(
    "columns",
    [
        {"a": [np.zeros(10_000_000)]},
        {"a": REPEATED},
        {"a": pa.ListArray.from_arrays([0, len(REPEATED)], REPEATED)},
        {"a": pa.repeat(pa.scalar(LONG.encode(), pa.binary(len(LONG))), 2_000)},
    ],
    ids=["numbers in one row", "one text in many rows", "one text many times in a row", "fixed bytes"],
)
def test_a_small_parquet_file_of_a_large_table_is_refused(columns: dict[str, Any]) -> None:
    body = parquet(columns)
    assert len(body) < 20_000
    before = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(before)
    POOLS.append(pool)
    pa.set_memory_pool(pool)
    try:
        with pytest.raises(InputTooLarge, match=r"take up to \d+ bytes, 16777216 are allowed"):
            read_parquet(body, ["a"], LIMITS)
    finally:
        pa.set_memory_pool(before)
    assert pool.max_memory() < 1 << 20


def test_only_the_columns_of_the_signature_are_read() -> None:
    wide = {name: np.zeros(100_000) for name in ("a", *(f"more {number}" for number in range(40)))}
    body = parquet(wide)
    assert read_parquet(body, ["a", "missing"], LIMITS).shape == (100_000, 1)
    with pytest.raises(InputTooLarge):
        read_parquet(body, None, LIMITS)
    with pytest.raises(InputError, match="100000 rows in one request, 2 are allowed"):
        read_parquet(body, ["a"], InputLimits(rows=2))


def test_parquet_is_read_as_pandas_reads_it() -> None:
    table = pd.DataFrame(
        {
            "a.b": [1.0, np.nan],
            "text": ["x", None],
            "list": [["x"], []],
            "kind": pd.Categorical(["u", "v"]),
            "at": pd.to_datetime(["2026-01-01", None]),
            "bytes": [b"x", None],
            "index": ["i", "j"],
        }
    ).set_index("index")
    file = io.BytesIO()
    table.to_parquet(file)
    wanted = pd.read_parquet(io.BytesIO(file.getvalue()))
    pd.testing.assert_frame_equal(read_parquet(file.getvalue(), None, LIMITS), wanted)
    some = ["text", "a.b", "index"]
    pd.testing.assert_frame_equal(read_parquet(file.getvalue(), some, LIMITS), wanted[["a.b", "text"]])


@pytest.mark.parametrize(
    ("key", "rows"),
    [
        ("dataframe_split", {"data": [[1]] * 20_000 + [[1] * 20_000]}),
        ("dataframe_split", {"data": 0, "columns": ["a"] * 20_000, "index": [0] * 20_000}),
        ("dataframe_split", {"data": {"a": 1}, "columns": ["a"] * 20_000, "index": [0] * 20_000}),
        ("dataframe_records", [{str(number): 1} for number in range(20_000)]),
        ("inputs", [{str(number): 1 for number in range(20_000)}, *[{}] * 20_000]),
        ("inputs", {"long": [1] * 20_000, **{str(number): 1 for number in range(20_000)}}),
        ("inputs", {"text": [LONG, *"x" * 20_000]}),
        ("inputs", [[LONG, *"x" * 20_000]]),
        ("instances", [{"text": "x"}] * 20_000 + [{"text": LONG}]),
    ],
)
def test_json_that_pandas_or_numpy_would_expand_is_refused(key: str, rows: Any) -> None:
    with pytest.raises(InputTooLarge):
        check_json({key: rows}, LIMITS)


@pytest.mark.parametrize(
    "text",
    [
        ",".join(map(str, range(9_000))) + "\n" + "1\n" * 20_000,
        "a\r" + "1," * 9_000 + "\r" + "1\r" * 20_000,
        '"a\nb",' + ",".join(map(str, range(9_000))) + "\r\n" + "1\r\n" * 20_000,
        "\n\n" + ",".join(map(str, range(9_000))) + "\n" + "1\n" * 20_000,
    ],
    ids=["header", "first row", "quoted line end", "blank lines"],
)
def test_a_csv_whose_short_lines_pandas_would_fill_is_refused(text: str) -> None:
    with pytest.raises(InputTooLarge):
        check_csv(text, LIMITS)


def test_an_ordinary_request_of_a_body_of_a_few_megabytes_is_allowed() -> None:
    rows = np.random.default_rng(1).normal(size=(50_000, 4)).tolist()
    records = [dict(zip("abcd", row, strict=True)) for row in rows]
    split = {"data": rows, "columns": list("abcd")}
    for key, given in (("inputs", rows), ("dataframe_split", split), ("instances", records)):
        check_json({key: given}, LIMITS)
    check_csv(pd.DataFrame(rows).to_csv(index=False), LIMITS)


def test_a_csv_with_very_many_or_repeated_columns_is_refused_before_pandas_names_them() -> None:
    with pytest.raises(InputError, match="20000 columns in one request, 10000 are allowed"):
        check_csv(",".join(map(str, range(20_000))) + "\n1", LIMITS)
    with pytest.raises(InputError, match="more than 100 names of columns are repeated"):
        check_csv("a," * 200 + "\n1", LIMITS)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"inputs": [{}] * 200_001}, "200001 rows in one request"),
        ({"dataframe_split": {"columns": ["a"], "data": [[]] * 200_001}}, "200001 rows in one request"),
        ({"dataframe_split": {"columns": ["a"] * 10_001, "data": []}}, "10001 columns"),
        ({"dataframe_records": [dict.fromkeys(map(str, range(10_001)), 1)]}, "10001 columns"),
        ({"inputs": {str(number): [1] for number in range(10_001)}}, "10001 columns"),
    ],
)
def test_json_of_too_many_rows_or_columns_is_refused_before_it_is_a_table(
    content: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        check_json(content, LIMITS)
