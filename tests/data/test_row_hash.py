"""A row's hash depends on its content and nothing else."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from registry_tools.data.row_hash import hash_rows, unit_interval


def test_the_order_of_columns_and_the_kind_of_number_do_not_matter() -> None:
    table = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    other = pd.DataFrame({"b": ["x", "y"], "a": [1.0, 2.0]})
    assert hash_rows(table).tolist() == hash_rows(other).tolist()


def test_missing_values_hash_alike_however_they_are_stored() -> None:
    as_nan = pd.DataFrame({"a": [np.nan, 1.0], "b": ["x", np.nan]})
    as_none = pd.DataFrame({"a": [None, 1.0], "b": pd.Series(["x", None], dtype=object)})
    assert hash_rows(as_nan).tolist() == hash_rows(as_none).tolist()


def test_a_boolean_column_hashes_alike_with_and_without_a_missing_value() -> None:
    whole = pd.DataFrame({"a": [True, False]})
    with_missing = pd.DataFrame({"a": pd.Series([True, False, None], dtype=object)})
    assert hash_rows(whole).tolist() == hash_rows(with_missing)[:2].tolist()


def test_names_and_values_matter() -> None:
    hashes = [
        hash_rows(pd.DataFrame(columns)).tolist()
        for columns in ({"a": [1]}, {"b": [1]}, {"a": [2]}, {"a": ["x"]}, {"a": [None]})
    ]
    assert len({h[0] for h in hashes}) == 5


def test_a_first_text_in_a_column_moves_no_other_row() -> None:
    numbers = pd.DataFrame({"code": [1, 2, 3], "note": [None, None, None]})
    texts = pd.DataFrame({"code": ["1", "2", "3", "unknown"], "note": [None, None, None, "new"]})
    assert hash_rows(texts)[:3].tolist() == hash_rows(numbers).tolist()


def test_text_codes_that_read_as_one_number_hash_differently() -> None:
    codes = [
        "1000",
        "01000",
        "1e3",
        "1000.0",
        "+1000",
        " 1000",
        "12345678901234567890",
        "12345678901234567891",
    ]
    assert len(set(hash_rows(pd.DataFrame({"code": codes})).tolist())) == len(codes)
    numbers = [
        hash_rows(pd.DataFrame({"code": column})).tolist()[0]
        for column in (
            pd.Series([1000]),
            pd.Series([1000.0]),
            pd.Series([1000, "A1"], dtype=object),
            pd.Series([1000.0, "A1"], dtype=object),
            pd.Series([np.float32(1000), "A1"], dtype=object),
            pd.Series([Decimal("1000.0"), "A1"], dtype=object),
            pd.Series(["1000"]),
        )
    ]
    assert len(set(numbers)) == 1


def test_numbers_beside_a_text_keep_their_hash() -> None:
    numbers = [0.1, -2.5, 1e-7, 1e300, -0.0, 2.0**60, 7]
    beside = pd.Series([*numbers, "unknown"], dtype=object)
    assert (
        hash_rows(pd.DataFrame({"a": beside}))[:-1].tolist()
        == hash_rows(pd.DataFrame({"a": numbers})).tolist()
    )


@pytest.mark.parametrize(
    "texts",
    [
        ["2026-01-31", "2026-02-01"],
        ["2026-01-31 00:00:00", "2026-02-01 12:30:00"],
        ["2026-01-31 12:30:00.250000", "2026-02-01 12:30:00.000000"],
        ["2026-01-31 00:00:00+01:00", "2026-02-01 12:30:00+01:00"],
    ],
)
def test_a_date_hashes_alike_in_csv_and_parquet(texts: list[str], tmp_path: Path) -> None:
    pd.DataFrame({"day": pd.to_datetime(pd.Series(texts))}).to_parquet(tmp_path / "a.parquet")
    pd.DataFrame({"day": texts}).to_csv(tmp_path / "a.csv", index=False)
    dates, written = pd.read_parquet(tmp_path / "a.parquet"), pd.read_csv(tmp_path / "a.csv")
    assert str(dates["day"].dtype).startswith("datetime64")
    as_learnt = pd.DataFrame({"day": dates["day"].map(lambda day: day.isoformat())})  # what models learn from
    hashes = hash_rows(dates).tolist()
    assert hashes == hash_rows(written).tolist() == hash_rows(as_learnt).tolist()
    assert hashes == [hash_rows(written[place : place + 1]).tolist()[0] for place in (0, 1)]
    assert len(set(hashes)) == 2


def test_a_date_without_a_time_hashes_as_written() -> None:
    days = pd.Series([date(2026, 1, 31), None, "2026-01-31T00:00:00"], dtype=object)
    hashes = hash_rows(pd.DataFrame({"day": days})).tolist()
    assert hashes[0] == hashes[2] == hash_rows(pd.DataFrame({"day": ["2026-01-31"]})).tolist()[0]
    codes = pd.DataFrame({"code": ["2026-01-31 00:00:00 x", "1234-5", "2026-01-31 00:00:01"]})
    assert len({*hash_rows(codes).tolist(), hashes[0]}) == 4


def test_the_hash_is_the_same_tomorrow() -> None:
    # Versions keep these hashes for years: a change here makes their training rows unknown.
    table = pd.DataFrame({"a": [1.5, np.nan], "b": ["x", None]})
    assert hash_rows(table).tolist() == [7659557982120503983, 6907551202790028158]


def test_the_unit_interval_is_filled_evenly_for_every_seed() -> None:
    table = pd.DataFrame({"a": np.arange(20_000) / 10})
    for seed in (0, 1, 42):
        spread = unit_interval(hash_rows(table), seed)
        counts, _ = np.histogram(spread, bins=20, range=(0, 1))
        assert abs(counts - 1000).max() < 150
