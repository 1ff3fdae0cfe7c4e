"""An input that is replaced or written to while it is scored: it is named, and no output left."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from registry_tools.batch.engines.process_pool import RowGroup, RowGroupResult
from registry_tools.batch.readers.file_identity import FileIdentity, fingerprint_of
from registry_tools.batch.readers.input_files import open_files
from registry_tools.batch.row_groups import check_row_group_result
from registry_tools.batch.scoring_job import score
from registry_tools.batch.scoring_plan import ScoringRequest
from registry_tools.batch.writers.parquet_copy import read_footer
from registry_tools.errors import InputError
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.refs import parse_ref
from tests.support.registries import GOOD, Place
from tests.support.tables import rows, write

CHANGED = "it was changed while it was read: score it again"


def replaced(path: Path, table: pd.DataFrame) -> None:
    """Put another file in the place of one, as a job does that writes its table anew."""
    new = path.with_name(f"new{path.suffix}")
    write(table, new, **({} if path.suffix == ".csv" else {"row_group_size": 700}))
    new.replace(path)


def identity_of(path: Path) -> FileIdentity:
    return FileIdentity(str(path), path.name, fingerprint_of(str(path)))


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


def read(one: FileIdentity, during: Callable[[Path], object]) -> None:
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


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_batches_end_with_an_error_where_the_file_is_another(form: str, tmp_path: Path) -> None:
    path = tmp_path / f"in.{form}"
    write(rows(100), path)
    for read in (0, 1):
        files = open_files(str(path))
        batches = files.batches(size=10)
        for _ in range(read):
            next(batches)
        replaced(path, rows(100))
        with pytest.raises(InputError, match=CHANGED):
            list(batches)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before the first row", "in the middle"])
@pytest.mark.parametrize(
    ("given", "output"), [("in.parquet", "out.parquet"), ("in.parquet", "out.csv"), ("in.csv", "out.csv")]
)
def test_a_scoring_of_a_file_that_is_changed_leaves_no_output(
    given: str, output: str, moment: str, local: Place, tmp_path: Path
) -> None:
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

    request = ScoringRequest(parse_ref(f"{local.model(GOOD)}/1"), str(path), tmp_path / output, workers=2)
    with pytest.raises(InputError, match=f"{given}: {CHANGED}"):
        score(request, TrustPolicy(), local.uri, begin)
    assert not [name for name in os.listdir(tmp_path) if "out" in name]


def test_a_row_group_that_is_not_as_long_as_the_footer_says_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"x": range(10)}), path)
    footer = read_footer(str(path))
    assert footer is not None
    group = RowGroup(identity_of(path), 0, 0, "part")
    check_row_group_result(footer, group, RowGroupResult(10, {}))
    with pytest.raises(InputError, match="row group 0 holds 9 rows, and the footer says 10"):
        check_row_group_result(footer, group, RowGroupResult(9, {}))
