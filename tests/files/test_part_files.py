"""What is written: where it may be, what it can hold, and what is left of it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from registry_tools.errors import InputError
from registry_tools.files import part_files, temp_files
from registry_tools.files.output_file import check_output, folder_beside, output_file, output_folder
from registry_tools.files.part_files import assemble, check_csv_columns, write_part


@pytest.mark.parametrize(
    ("kind", "fits"),
    [
        (pa.list_(pa.int8()), False),
        (pa.struct([("x", pa.int8())]), False),
        (pa.map_(pa.string(), pa.int8()), False),
        (pa.dictionary(pa.int32(), pa.string()), True),
        (pa.timestamp("us", "Europe/Berlin"), True),
        (pa.decimal128(9, 2), True),
        (pa.null(), True),
    ],
)
def test_a_column_that_a_csv_cannot_hold_is_named_before_a_row_is_scored(
    kind: Any, fits: bool, tmp_path: Path
) -> None:
    schema = pa.schema([("id", pa.int64()), ("tags", kind)])
    if not fits:
        with pytest.raises(InputError, match=r"in\.parquet: column 'tags' holds .*, and a CSV can"):
            check_csv_columns("out.csv", schema, "in.parquet")
        return
    check_csv_columns("out.csv", schema, "in.parquet")
    part, output = tmp_path / "part", tmp_path / "out.csv"
    write_part(part, part_files.CSV, iter([pa.RecordBatch.from_pylist([{"id": 1}], schema=schema)]), {})
    assemble(output, part_files.CSV, [part], schema, {})
    assert output.read_text() == "id,tags\n1,\n"
    assert not part.exists()


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_and_what_it_leads_to_is_written(there: bool, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    real, link = tmp_path / "far" / "real.csv", tmp_path / "out.csv"
    link.symlink_to("far/real.csv")
    if there:
        real.write_text("before")
    check_output(link, False, [".csv"])
    with output_file(link) as partial:
        partial.write_text("after")
        assert partial.parent == real.parent  # or it could not be renamed in one step
    assert link.is_symlink()
    assert real.read_text() == "after"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["far", "out.csv", "real.csv"]
    link.unlink()
    link.symlink_to("none/real.csv")
    with pytest.raises(InputError, match=r"out\.csv: cannot be written: there is no folder .*none"):
        check_output(link, False, [".csv"])


def test_temporary_files_of_killed_processes_are_removed_and_those_in_use_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    mine = temp_files.make_temp_folder("scoring")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    other = mine.with_name(mine.name.replace(f"-{os.getpid()}-", f"-{dead.pid}-"))
    other.mkdir()
    (other / "0.parquet").touch()
    target = tmp_path / "out.csv"
    part = target.with_name(temp_files.name_for_process(".out.csv.", "-00ff.part"))
    left = part.with_name(part.name.replace(f"-{os.getpid()}-", f"-{dead.pid}-"))
    kept = [mine, other.with_name("scoring-elsewhere-1-x"), tmp_path / "scoring-notes"]
    for path in kept[1:]:
        path.mkdir()
    left.touch()
    new = temp_files.make_temp_folder("scoring")
    with output_file(target) as partial:
        partial.touch()
    assert sorted(tmp_path.iterdir()) == sorted([*kept, new, target])


def test_a_folder_takes_its_name_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with pytest.raises(InputError, match="File exists"), output_folder(target) as partial:
        partial.mkdir()
    assert not list(tmp_path.iterdir())
    target.mkdir()  # an empty folder is replaced
    with output_folder(target) as partial, folder_beside(target) as scratch:
        (partial / "part").touch()
        (scratch / "text").touch()
        assert not list(target.iterdir())
    assert list(tmp_path.rglob("*")) == [target, target / "part"]
    with pytest.raises(InputError, match="out exists and is not an empty folder: remove it"):
        check_output(target, True, [])
    # Another job may have written it since.
    refused = pytest.raises(InputError, match="out exists and is not an empty folder: remove it")
    with refused, output_folder(target) as partial:
        (partial / "part").touch()
    assert list(tmp_path.rglob("*")) == [target, target / "part"]


def test_row_groups_are_large_whatever_the_size_of_the_parts(tmp_path: Path) -> None:
    rows = pa.RecordBatch.from_pydict({"a": pa.array(range(400_000)), "text": ["x"] * 400_000})
    parts = [tmp_path / str(number) for number in range(4)]
    for part in parts:
        write_part(part, part_files.ARROW, iter([rows.slice(0, 100_000), rows.slice(100_000)]), {})
    options = part_files.parquet_options(rows.schema, 1, None)
    assemble(tmp_path / "out.parquet", part_files.ARROW, parts, rows.schema, options)
    found = pq.ParquetFile(tmp_path / "out.parquet")
    sizes = [found.metadata.row_group(place).num_rows for place in range(found.num_row_groups)]
    assert sum(sizes) == 1_600_000
    assert sizes[0] >= 1 << 20
    assert len(sizes) == 2
    assert found.metadata.row_group(0).column(1).statistics is None
    assert found.read().equals(pa.Table.from_batches([rows] * 4))


def test_columns_of_the_input_keep_their_compression_and_need_a_dictionary_that_pays(tmp_path: Path) -> None:
    table = pa.table({"few": [1.5, 2.5] * 5000, "many": np.random.default_rng(1).random(10_000)})
    pq.write_table(table, tmp_path / "in.parquet", compression="zstd")
    like = pq.ParquetFile(tmp_path / "in.parquet").metadata
    name = pa.DictionaryArray.from_arrays(pa.array([0] * 10_000, pa.int32()), ["x"])
    added = table.append_column("prediction", pa.array([1] * 10_000)).append_column("name", name)
    options = part_files.parquet_options(added.schema, 2, like)
    write_part(tmp_path / "out.parquet", part_files.PARQUET, iter(added.to_batches()), options)
    group = pq.ParquetFile(tmp_path / "out.parquet").metadata.row_group(0)
    chunks = {chunk.path_in_schema: chunk for chunk in map(group.column, range(4))}
    assert {chunk.compression for chunk in chunks.values()} == {"ZSTD"}
    encoded = [name for name, chunk in chunks.items() if chunk.has_dictionary_page]
    assert encoded == ["few", "name"]
    assert [name for name, chunk in chunks.items() if chunk.is_stats_set] == ["few", "many"]


def test_the_parts_of_a_folder_are_on_the_disk_before_it_takes_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed = []
    fsync = os.fsync

    def record(descriptor: int) -> None:
        assert not (tmp_path / "out").exists()
        flushed.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    with output_folder(tmp_path / "out") as partial:
        (partial / "part").write_text("rows")
    assert flushed == [(tmp_path / "out" / "part").stat().st_ino, (tmp_path / "out").stat().st_ino]
