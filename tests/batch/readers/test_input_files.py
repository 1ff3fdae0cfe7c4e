"""The files that are to be scored: found by their names, and compared before a row is read."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from registry_tools.batch.readers import read_rows
from registry_tools.batch.readers.input_files import open_files
from registry_tools.errors import InputError


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_duplicate_column_in_any_file_is_named(form: str, place: int, tmp_path: Path) -> None:
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
def test_a_file_name_may_contain_url_characters(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("a\n1\n")
    for given in (tmp_path / name, tmp_path):
        files = open_files(str(given))
        assert [one.path for one in files.identities] == [str(tmp_path / name)]
        assert [batch.rows.to_pylist() for batch in files.batches()] == [[{"a": "1"}]]
    (url,) = open_files((tmp_path / name).as_uri()).identities
    assert url.path == str(tmp_path / name)


WIDE = [f"column {number:05}" for number in range(10_000)]  # 130 KB in a header


@pytest.mark.parametrize(
    ("content", "names", "rows"),
    [
        ("a,b", ["a", "b"], 0),
        ("a,b\n", ["a", "b"], 0),
        ("\ufeffa,b\r\n1,2", ["a", "b"], 1),
        (",".join(WIDE), WIDE, 0),
        (",".join(WIDE) + "\n" + ",".join("1" * len(WIDE)), WIDE, 1),
        ('"a\nb",c\n1,2\n', ["a\nb", "c"], 1),
        ('"a\nb",c', ["a\nb", "c"], 0),
    ],
)
def test_a_header_is_read_whatever_its_length_and_its_end(
    content: str, names: list[str], rows: int, tmp_path: Path
) -> None:
    path = tmp_path / "in.csv"
    path.write_text(content)
    files = open_files(str(path))
    assert files.schema.names == names
    assert sum(batch.rows.num_rows for batch in files.batches()) == rows


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "it is empty, without even a header"),
        ("\ufeff", "it is empty, without even a header"),
        ("\r\n\n", "it is empty, without even a header"),
        ('a,"b\n1,2\n', "its header does not end within"),
        ("x" * (5 << 20), "its header does not end within 4,194,304 bytes"),
    ],
)
def test_what_has_no_header_is_refused(content: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(content)
    with pytest.raises(InputError, match=rf"in\.csv: {reason}"):
        open_files(str(tmp_path / "in.csv"))


@pytest.mark.parametrize("block", [40, 100, 1 << 20])
@pytest.mark.parametrize("size", [1, 3, 100])
def test_malformed_lines_keep_their_position(
    size: int, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_rows, "BLOCK_BYTES", block)
    malformed = {0, 1, 7, 8, 9, 20, *range(22, 60), 99}
    lines = [f"{row},1,2" if row in malformed else f"{row},1" for row in range(100)]
    path = tmp_path / "in.csv"
    path.write_text("\n".join(["row,b", *lines[:50], "", *lines[50:]]))
    seen = []
    for batch in open_files(str(path)).batches(size):
        numbers = batch.rows.column("row").to_pylist()
        here = [(batch.row_in_file(place), int(number)) for place, number in enumerate(numbers)]
        here += [(line.row, int(line.text.partition(",")[0])) for line in batch.malformed]
        seen += sorted(here)
    assert seen == [(row, row) for row in range(100)]
