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
