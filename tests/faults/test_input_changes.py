"""An input that is replaced or written to while it is scored: it is named, and no output left."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from registry_tools.batch import slices, worker_pool
from registry_tools.batch.job import ScoringRequest
from registry_tools.batch.scoring_job import score
from registry_tools.batch.slices import Slice
from registry_tools.errors import InputError
from registry_tools.files import csv_rows
from registry_tools.files.input_files import InputFile, open_files
from registry_tools.refs import parse_ref
from tests.support.constants import LONG
from tests.support.registries import GOOD, Place
from tests.support.tables import rows, write

CHANGED = "it was changed while it was read: score it again"


def replaced(path: Path, table: pd.DataFrame) -> None:
    """Put another file in the place of one, as a job does that writes its table anew."""
    new = path.with_name(f"new{path.suffix}")
    write(table, new, **({} if path.suffix == ".csv" else {"row_group_size": 700}))
    new.replace(path)


def identity_of(path: Path) -> InputFile:
    (one,) = open_files(str(path)).files
    return dataclasses.replace(one, name=path.name)


def replace_alike(path: Path) -> None:
    """Put a file in the place of one that is as long, and has the same time."""
    shutil.copy2(path, path.with_name("new.csv"))
    path.with_name("new.csv").replace(path)


def append(path: Path) -> None:
    with path.open("a") as file:
        file.write("2\n")


def tear(path: Path) -> None:
    path.unlink()
    raise OSError("torn")


def read(one: InputFile, during: Callable[[Path], object]) -> None:
    with one.reading():
        during(Path(one.path))


@pytest.mark.parametrize("change", [replace_alike, append, Path.unlink, tear])
def test_a_file_that_is_changed_while_it_is_read_is_named(
    change: Callable[[Path], object], tmp_path: Path
) -> None:
    path = tmp_path / "in.csv"
    path.write_text("a\n1\n")
    read(identity_of(path), Path.read_text)
    with pytest.raises(InputError, match=rf"^in\.csv: {CHANGED}"):
        read(identity_of(path), change)


def test_a_csv_that_is_another_when_its_rows_are_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    write(rows(100_000), path)
    for read in (0, 1):
        work = slices.cut_text(open_files(str(path)), tmp_path)
        for _ in range(read):
            next(work)
        replaced(path, rows(100_000))
        with pytest.raises(InputError, match=CHANGED):
            list(work)


@LONG
@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before the first row", "in the middle"])
@pytest.mark.parametrize(
    ("given", "output"), [("in.parquet", "out.parquet"), ("in.parquet", "out.csv"), ("in.csv", "out.csv")]
)
def test_a_scoring_of_a_file_that_is_changed_leaves_no_output(
    given: str, output: str, moment: str, local: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The progress is reported at once, when most slices are still to be read.
    monkeypatch.setattr(worker_pool, "_REPORT_SECONDS", 0)
    monkeypatch.setattr(slices, "FEWEST_ROWS", 1000)
    monkeypatch.setattr(slices, "_JOINED_ROWS", 1000)
    monkeypatch.setattr(csv_rows, "BLOCK_BYTES", 1 << 16)
    path = tmp_path / given
    table = rows(300_000)
    write(table, path, **({} if given.endswith("csv") else {"row_group_size": 1000}))
    other = table.iloc[::-1].reset_index(drop=True)

    def begin(files: object) -> Callable[[int, int], None]:
        if moment == "before the first row":
            replaced(path, other)

        def progress(done: int, count: int) -> None:
            if moment == "in the middle" and not (tmp_path / "replaced").exists():
                (tmp_path / "replaced").touch()
                replaced(path, other)

        return progress

    request = ScoringRequest(
        parse_ref(f"{local.model(GOOD)}/1"), str(path), str(tmp_path / output), workers=2
    )
    with pytest.raises(InputError, match=f"{given}: {CHANGED}"):
        score(request, local.uri, begin)
    assert not [name for name in os.listdir(tmp_path) if "out" in name]


def test_row_groups_that_are_not_as_long_as_the_footer_says_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"x": range(10)}), path)
    piece = Slice(identity_of(path), 4, 6, (0,), skip=4)
    (found,) = piece.read(["x"])
    assert found.column("x").to_pylist() == [4, 5, 6, 7, 8, 9]
    with pytest.raises(InputError, match=r"in\.parquet: cannot be read: 2 rows fewer than"):
        list(dataclasses.replace(piece, rows=8).read(["x"]))
