"""Reading, checking, sampling and splitting tables."""

from __future__ import annotations

import logging
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.data.load import load_dataset
from pipeline.data.split import split_rows
from pipeline.errors import DataError, InvalidParameter
from pipeline.params.definitions import TrainParams


def write(folder: Path, text: str, name: str = "table.csv") -> TrainParams:
    path = folder / name
    path.write_text(text)
    return TrainParams(data=str(path), target="kind", name="own")


def test_iris_is_split_30_to_120_with_ten_of_each_class() -> None:
    dataset = load_dataset(TrainParams())
    train, holdout = split_rows(dataset, TrainParams())
    assert (len(train), len(holdout)) == (120, 30)
    assert np.bincount(dataset.labels.iloc[holdout]).tolist() == [10, 10, 10]
    assert set(train) | set(holdout) == set(range(150))


def test_a_column_of_row_names_is_reported_and_can_be_dropped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = "".join(f"P{n},{n % 7},{'ab'[n % 2]}\n" for n in range(30))
    params = write(tmp_path, "who,x,kind\n" + rows)
    assert list(load_dataset(params).features) == ["who", "x"]
    assert "'who' has a different value in each row" in caplog.text
    assert "leave it out with --drop who" in caplog.text
    assert list(load_dataset(params.replace(drop=("who",))).features) == ["x"]
    with pytest.raises(DataError, match=r"drop=whom: .* no such column, only 'who', 'x', 'kind'"):
        load_dataset(params.replace(drop=("whom",)))


def test_rows_that_differ_in_a_left_out_column_alone_are_on_one_side(tmp_path: Path) -> None:
    rows = "".join(f"P{n},{n // 2},{'ab'[n // 2 % 2]}\n" for n in range(200))
    params = write(tmp_path, "who,x,kind\n" + rows)
    hashes = load_dataset(params.replace(drop=("who",))).hashes
    assert (hashes[::2] == hashes[1::2]).all()


@pytest.mark.parametrize("size", [30, 0.2])
def test_test_size_is_a_number_of_rows_or_a_fraction(size: float) -> None:
    params = TrainParams(test_size=size)
    assert len(split_rows(load_dataset(params), params)[1]) == 30


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        (2, "2 of 150 rows would be held out, fewer than the 3 classes"),
        (148, "2 of 150 rows would be left to train on"),
        (150, "0 of 150 rows would be left to train on"),
        (0.001, "1 of 150 rows would be held out"),
    ],
)
def test_a_test_size_that_leaves_too_few_rows_is_refused(size: float, reason: str) -> None:
    params = TrainParams(test_size=size)
    with pytest.raises(InvalidParameter, match=reason):
        split_rows(load_dataset(params), params)


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        (151, "the table has only 150 rows"),
        (2, "no row of class"),
        (4, "one row only of class"),
        (6, "too few for the split"),
    ],
)
def test_a_subset_larger_than_the_table_or_without_a_class_is_refused(size: int, reason: str) -> None:
    with pytest.raises(InvalidParameter, match=f"^subset_size={size}: .*{reason}"):
        load_dataset(TrainParams(subset_size=size))


def test_a_subset_is_the_same_rows_for_the_same_seed() -> None:
    first, again, other = (load_dataset(TrainParams(subset_size=60, random_state=seed)) for seed in (1, 1, 2))
    assert len(first.labels) == 60
    assert first.hashes.tolist() == again.hashes.tolist()
    assert first.hashes.tolist() != other.hashes.tolist()
    assert np.bincount(first.labels).tolist() == [20, 20, 20]


def test_a_hash_split_keeps_every_row_on_its_side_while_the_table_grows() -> None:
    params = TrainParams(split="hash")
    whole = load_dataset(params)
    half = whole.take(np.arange(0, 150, 2))
    held_out_of_half = set(half.hashes[split_rows(half, params)[1]])
    held_out_of_whole = set(whole.hashes[split_rows(whole, params)[1]])
    assert held_out_of_half == held_out_of_whole & set(half.hashes)
    assert 0.1 < len(held_out_of_whole) / 150 < 0.3


def test_a_hash_split_depends_on_the_seed() -> None:
    dataset = load_dataset(TrainParams())
    sides = [split_rows(dataset, TrainParams(split="hash", random_state=seed))[1].tolist() for seed in (1, 2)]
    assert sides[0] != sides[1]


def test_a_hash_split_that_leaves_a_class_untrained_is_refused(tmp_path: Path) -> None:
    params = write(tmp_path, "x,kind\n1,a\n2,a\n3,b\n4,b\n")
    params = TrainParams(
        data=params.data, target="kind", name="own", split="hash", test_size=0.95, random_state=3
    )
    with pytest.raises(InvalidParameter, match="left to train on"):
        split_rows(load_dataset(params), params)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it is empty"),
        ("x,kind\n", "it has no rows"),
        ("x,sort\n1,a\n2,b\n", "no such column, only 'x', 'sort'"),
        ("x,kind\n1,a\n2,a\n", "only the class 'a'; two are needed"),
        ("x,kind\n1,a\n2,a\n3,b\n", "only one row of 'b'"),
        ("x,kind\n1,\n2,\n", "no labelled row"),
        ("kind\na\na\nb\nb\n", "no column to learn from"),
        ("x,kind\n1,a\n1,a\n1,b\n1,b\n", "no column to learn from"),
        ("x,kind\ninf,a\n2,a\n1,b\n1,b\n", "row 0: the value is infinite"),
        ("x,kind\n1.5,0.11\n2,0.12\n1,0.13\n", "is this column a class"),
        ("x,kind\n1,inf\n2,inf\n1,2\n1,2\n", "a label is infinite"),
        ("x,kind\n1,a,7\n2,a,7\n1,b,7\n", "more values than the header has names"),
    ],
)
def test_a_table_without_usable_features_or_labels_is_refused(text: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=reason):
        load_dataset(write(tmp_path, text))


def test_a_missing_file_and_a_wrong_format_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.csv: there is no such file or folder \(looked in"):
        load_dataset(TrainParams(data="nowhere.csv", target="kind", name="own"))
    with pytest.raises(DataError, match=r"table\.parquet: cannot be read: Parquet magic bytes"):
        load_dataset(write(tmp_path, "x,kind\n1,a\n", "table.parquet"))


def test_constant_and_empty_columns_are_dropped_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    params = write(tmp_path, "x,planet,hole,kind\n1,earth,,a\n2,earth,,a\n3,earth,,b\n4,earth,,b\n")
    with caplog.at_level(logging.WARNING):
        dataset = load_dataset(params)
    assert list(dataset.features) == ["x"]
    assert "'planet' is left out: it is constant, 'earth'" in caplog.text
    assert "'hole' is left out: all its values are missing" in caplog.text


def test_rows_without_a_label_are_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    params = write(tmp_path, "x,kind\n1,a\n2,a\n3,\n4,b\n5,b\n")
    with caplog.at_level(logging.WARNING):
        dataset = load_dataset(params)
    assert len(dataset.labels) == 4
    assert "1 rows without a label" in caplog.text


def test_labels_may_be_numbers_and_booleans(tmp_path: Path) -> None:
    numbers = load_dataset(write(tmp_path, "x,kind\n1,10\n2,10\n3,2\n4,2\n5,\n"))
    assert numbers.target_names == ("2", "10")
    assert numbers.labels.tolist() == [1, 1, 0, 0]
    booleans = load_dataset(write(tmp_path, "x,kind\n1,True\n2,True\n3,False\n4,False\n"))
    assert booleans.target_names == ("False", "True")


def test_times_and_lists_are_refused(tmp_path: Path) -> None:
    table = pd.DataFrame({"x": [1, 2, 3, 4], "kind": list("aabb")})
    path = tmp_path / "table.parquet"
    params = TrainParams(data=str(path), target="kind", name="own")
    table.assign(when=pd.to_timedelta(range(4), "D")).to_parquet(path)
    with pytest.raises(DataError, match=r"'when' has values of type Timedelta"):
        load_dataset(params)
    table.assign(many=[[1], [2], [3], [4]]).to_parquet(path)
    with pytest.raises(DataError, match=r"'many' has values of type ndarray"):
        load_dataset(params)


def test_csv_and_parquet_of_one_table_give_the_same_rows(table_csv: Path) -> None:
    parquet = table_csv.with_suffix(".parquet")
    pd.read_csv(table_csv).to_parquet(parquet)
    first, second = (
        load_dataset(TrainParams(data=str(path), target="kind", name="own")) for path in (table_csv, parquet)
    )
    assert first.hashes.tolist() == second.hashes.tolist()
    pd.testing.assert_frame_equal(first.features, second.features)


def test_plain_kinds_of_columns_become_numbers_booleans_or_text(tmp_path: Path) -> None:
    rows = 8
    table = pd.DataFrame(
        {
            "small": pd.Series(range(rows), dtype="int8"),
            "nullable": pd.Series([1, 2, None, 4] * 2, dtype="Int64"),
            "exact": pd.Series([Decimal(i) / 4 for i in range(rows)]),
            "maybe": pd.Series([True, False, None, True] * 2, dtype="boolean"),
            "colour": pd.Categorical(["red", "blue"] * 4),
            "kind": list("aabb") * 2,
        }
    )
    path = tmp_path / "table.parquet"
    table.to_parquet(path)
    features = load_dataset(TrainParams(data=str(path), target="kind", name="own")).features
    kinds = {name: str(column.dtype) for name, column in features.items()}
    assert kinds == {
        "small": "int64",
        "nullable": "float64",
        "exact": "float64",
        "maybe": "object",
        "colour": "object",
    }
    assert features["maybe"].tolist()[:3] == [True, False, None]
    assert features["colour"].tolist()[:2] == ["red", "blue"]


def test_large_whole_labels_keep_their_names(tmp_path: Path) -> None:
    large = 2**64 - 1
    table = pd.DataFrame({"x": range(4), "kind": np.array([large, large, 1, 1], dtype="uint64")})
    path = tmp_path / "table.parquet"
    table.to_parquet(path)
    loaded = load_dataset(TrainParams(data=str(path), target="kind", name="own"))
    assert loaded.target_names == ("1", str(large))
