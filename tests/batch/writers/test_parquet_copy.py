"""Parquet row groups copied into a file with columns added."""

from __future__ import annotations

import random
import string
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from registry_tools.batch.writers.parquet_copy import RowGroupCopier, read_footer, same_schema_footers
from registry_tools.batch.writers.thrift import ThriftReader, serialize


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


def copied(paths: list[str], target: Path) -> pa.Table:
    """Copy files into one with two columns added; return what the others hold there."""
    footers = same_schema_footers([read_footer(path) for path in paths])
    assert footers is not None
    written_schema = pq.read_schema(paths[0])
    copier = RowGroupCopier(target, footers[0])
    for one in footers:
        for place in range(len(one.groups)):
            rows = one.rows_of(place)
            added = {"added": pa.array(["x"] * rows, pa.string()).dictionary_encode()}
            added["n"] = pa.array([7] * rows, pa.int64())
            part = parquet(target.with_name("part.parquet"), pa.table(added))
            copier.copy_row_group(one, place, Path(part))
    copier.write_footer(
        pa.schema(
            [*written_schema, pa.field("added", pa.string()), pa.field("n", pa.int64())],
            metadata=written_schema.metadata,
        )
    )
    copier.close()
    found = pq.read_table(target)
    assert set(found["added"].to_pylist()) <= {"x"}
    assert found.schema.field("added").type == pa.string()
    assert set(found["n"].to_pylist()) <= {7}
    return found.drop(["added", "n"])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zstd", "row_group_size": 300},
        {"use_dictionary": False, "compression": "none", "write_page_index": True},
        {"version": "1.0", "data_page_version": "2.0", "store_schema": False},
    ],
)
def test_copied_columns_are_as_they_were(options: dict[str, Any], tmp_path: Path) -> None:
    table = odd_table(1)
    paths = [parquet(tmp_path / f"{n}.parquet", table.slice(n), **options) for n in range(2)]
    wanted = pa.concat_tables([pq.read_table(path) for path in paths])
    found = copied(paths, tmp_path / "out.parquet")
    assert found.num_rows == wanted.num_rows
    assert found.equals(wanted, check_metadata=True)


@pytest.mark.parametrize("dictionary", [True, False])
def test_a_row_group_without_rows_is_copied(dictionary: bool, tmp_path: Path) -> None:
    table = pa.table({"x": [1.5, 2.5], "text": ["a", "b"]})
    some = parquet(tmp_path / "some.parquet", table, use_dictionary=dictionary)
    none = parquet(tmp_path / "none.parquet", table.slice(0, 0), use_dictionary=dictionary)
    assert pq.ParquetFile(none).num_row_groups == 1
    for number, paths in enumerate([[none], [none, some], [some, none, some]]):
        wanted = pa.concat_tables([pq.read_table(path) for path in paths])
        assert copied(paths, tmp_path / f"out-{number}.parquet").equals(wanted)


def test_a_footer_is_written_as_it_was_read(tmp_path: Path) -> None:
    path = Path(parquet(tmp_path / "a.parquet", odd_table(2), row_group_size=50))
    content = path.read_bytes()
    size = int.from_bytes(content[-8:-4], "little")
    raw = content[-8 - size : -8]
    assert serialize(ThriftReader(raw).struct()) == raw


def test_files_of_another_schema_are_not_copied(tmp_path: Path) -> None:
    one = parquet(tmp_path / "a.parquet", pa.table({"x": [1]}))
    other = parquet(tmp_path / "b.parquet", pa.table({"x": pa.array([1], pa.int32())}))
    assert same_schema_footers([read_footer(one), read_footer(other)]) is None
    torn = tmp_path / "torn.parquet"
    torn.write_bytes(Path(one).read_bytes()[:-9] + b"\xff" * 5 + b"PAR1")
    assert read_footer(str(torn)) is None
