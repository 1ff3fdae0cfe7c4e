"""The files that are to be scored: found by their names, and compared before a row is read."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from registry_tools.batch.files import open_files
from registry_tools.errors import InputError


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_column_that_stands_twice_in_any_file_is_named(
    form: str, place: int, tmp_path: Path
) -> None:
    for number in range(2):
        names = ["a", "b", "b"] if number == place else ["a", "b"]
        path = tmp_path / f"{number}.{form}"
        if form == "csv":
            path.write_text(",".join(names) + "\n")
        else:
            pq.write_table(pa.table([pa.array([1])] * len(names), names=names), path)
    with pytest.raises(InputError, match=rf"/{place}\.{form}: column 'b' stands twice"):
        open_files(str(tmp_path))


@pytest.mark.parametrize("name", ["a#1.csv", "a?.csv", "day 1%20#?x.csv", "ä.CSV"])
def test_a_name_may_hold_what_means_something_in_a_url(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("a\n1\n")
    for given in (tmp_path / name, tmp_path):
        files = open_files(str(given))
        assert [one.path for one in files.known] == [str(tmp_path / name)]
        assert [batch.rows.to_pylist() for batch in files.batches()] == [[{"a": "1"}]]
    (url,) = open_files((tmp_path / name).as_uri()).known
    assert url.path == str(tmp_path / name)
