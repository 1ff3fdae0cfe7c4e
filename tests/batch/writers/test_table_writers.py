"""What is written: where it may be, what it can hold, and what is left of it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from registry_tools.batch.writers.table_writers import check_columns, check_target, open_writer
from registry_tools.data import temp_files
from registry_tools.data.output_file import output_file
from registry_tools.errors import InputError


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
    check_columns(tmp_path / "out.parquet", schema, "in.parquet")
    if not fits:
        with pytest.raises(InputError, match=r"in\.parquet: column 'tags' holds .*, and a CSV can"):
            check_columns(tmp_path / "out.csv", schema, "in.parquet")
        return
    check_columns(tmp_path / "out.csv", schema, "in.parquet")
    written = open_writer(tmp_path / "out.csv", tmp_path / "out.csv", schema, None)
    written.write(pa.RecordBatch.from_pylist([{"id": 1}], schema=schema))
    written.close()
    assert (tmp_path / "out.csv").read_text() == "id,tags\n1,\n"


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_and_what_it_leads_to_is_written(there: bool, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    real, link = tmp_path / "far" / "real.csv", tmp_path / "out.csv"
    link.symlink_to("far/real.csv")
    if there:
        real.write_text("before")
    check_target(link)
    with output_file(link) as partial:
        partial.write_text("after")
        assert partial.parent == real.parent  # or it could not be renamed in one step
    assert link.is_symlink()
    assert real.read_text() == "after"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["far", "out.csv", "real.csv"]
    link.unlink()
    link.symlink_to("none/real.csv")
    with pytest.raises(InputError, match=r"out\.csv: cannot be written: there is no folder .*none"):
        check_target(link)


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
