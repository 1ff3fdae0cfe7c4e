"""The files that are to be scored: found by their names, and compared before a row is read."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from registry_tools.errors import InputError
from registry_tools.files import csv_rows
from registry_tools.files.csv_rows import CsvFormat, TextRows
from registry_tools.files.input_files import open_files


def read_text(path: Path, form: CsvFormat | None = None) -> list[TextRows]:
    """Return all batches of one CSV."""
    files = open_files(str(path), form)
    assert files.csv is not None
    (one,) = files.files
    with one.reading() as source:
        return list(csv_rows.read_rows(source, one.path, files.schema.names, files.csv))


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


def test_a_url_may_contain_a_space_and_any_letter(tmp_path: Path) -> None:
    folder = tmp_path / "a ü"
    folder.mkdir()
    (folder / "b%20c.csv").write_text("x\n1\n")
    (file,) = open_files(f"file://{folder}").files
    assert file.path == str(folder / "b%20c.csv")


@pytest.mark.parametrize("name", ["a#1.csv", "a?.csv", "day 1%20#?x.csv", "ä.CSV"])
def test_a_file_name_may_contain_url_characters(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("a\n1\n")
    for given in (tmp_path / name, tmp_path):
        files = open_files(str(given))
        assert [one.path for one in files.files] == [str(tmp_path / name)]
        assert [batch.rows.to_pylist() for batch in read_text(given)] == [[{"a": "1"}]]
    (url,) = open_files((tmp_path / name).as_uri()).files
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
    assert open_files(str(path)).schema.names == names
    assert sum(batch.rows.num_rows for batch in read_text(path)) == rows


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
def test_malformed_lines_keep_their_position(
    block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_rows, "BLOCK_BYTES", block)
    malformed = {0, 1, 7, 8, 9, 20, *range(22, 60), 99}
    lines = [f"{row},1,2" if row in malformed else f"{row},1" for row in range(100)]
    path = tmp_path / "in.csv"
    path.write_text("\n".join(["row,b", *lines[:50], "", *lines[50:]]))
    seen, bad = [], {}
    for batch in read_text(path):
        assert batch.first_row == len(seen)
        bad |= {batch.first_row + place: reason for place, reason in batch.bad.items()}
        seen += batch.rows.column("row").to_pylist()
    assert seen == [str(row) for row in range(100)]
    assert bad == dict.fromkeys(sorted(malformed), "3 values, and the header names 2")


@pytest.mark.slow
@pytest.mark.timeout(60)  # a search through all lines for each line takes minutes
def test_many_malformed_lines_in_one_block_are_read(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("a,b\n1,2\n" + "1,2,3\n" * 100_000)
    assert sum(len(batch.bad) for batch in read_text(path)) == 100_000


def test_a_file_whose_lines_never_fit_its_header_is_refused_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_rows, "_MOST_MALFORMED", 20)
    path = tmp_path / "in.csv"
    path.write_text("a,b\n" + "1,2,3\n" * 20 + "1,2\n")
    with pytest.raises(ValueError, match="the first 20 lines do not fit the header of 2 columns: check"):
        read_text(path)
    path.write_text("a,b\n" + "1,2,3\n" * 19 + "1,2\n" + "1,2,3\n" * 30)
    assert sum(len(batch.bad) for batch in read_text(path)) == 49


@pytest.mark.parametrize("good", ["", "1,2\n"])
def test_malformed_lines_of_a_file_with_another_column_order_keep_their_columns(
    good: str, tmp_path: Path
) -> None:
    path = tmp_path / "in.csv"
    path.write_text(f"b,a\n{good}3,4,5\n")
    files = open_files(str(path))
    assert files.csv is not None
    with files.files[0].reading() as source:
        (batch,) = csv_rows.read_rows(source, str(path), ["a", "b"], files.csv)
    assert batch.rows.to_pylist()[-1] == {"a": "4", "b": "3"}


def test_bytes_that_are_not_utf_8_make_their_row_malformed(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(b"a,b\n1,\xc3\xa4\n1,2,3\n\xff2,x\n\xff,\xfe\n")
    (batch,) = read_text(path)
    assert batch.rows.to_pylist() == [
        {"a": "1", "b": "ä"},
        {"a": "1", "b": "2"},
        {"a": "\\xff2", "b": "x"},
        {"a": "\\xff", "b": "\\xfe"},
    ]
    assert list(batch.bad) == [2, 3, 1]
    assert batch.bad[2] == r"column 'a': '\xff2' is not UTF-8 (name its encoding)"
    assert "column 'a': " in batch.bad[3]


def test_a_line_with_too_many_values_may_hold_bytes_that_are_not_utf_8(tmp_path: Path, capfd: Any) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(b"a,b\n1,2\n\xff,\xc3\xa4,3\n3,\xc3")
    (batch,) = read_text(path)
    assert batch.rows.to_pylist()[1:] == [{"a": "\\xff", "b": "ä"}, {"a": "3", "b": "\\xc3"}]
    assert batch.bad[1] == "3 values, and the header names 2"
    assert "column 'b'" in batch.bad[2]
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "compress"), [("a.csv.gz", gzip.compress), ("a.CSV.ZST", pa.Codec("zstd").compress)]
)
def test_compressed_csv_is_read(name: str, compress: Callable[[bytes], bytes], tmp_path: Path) -> None:
    content = b"a,b\n" + b"1,2\n" * 300_000
    (tmp_path / name).write_bytes(bytes(compress(content)))
    batches = read_text(tmp_path / name)
    assert sum(batch.rows.num_rows for batch in batches) == 300_000
    assert batches[-1].done == (tmp_path / name).stat().st_size


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-8-sig"])
def test_separator_and_encoding_are_followed(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes('größe;b\n"1;5";ü\n1\n'.encode(encoding))
    (batch,) = read_text(path, CsvFormat(";", encoding))
    assert batch.rows.to_pylist() == [{"größe": "1;5", "b": "ü"}, {"größe": "1", "b": ""}]
    assert list(batch.bad) == [1]


def test_text_in_another_encoding_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes("größe\n1\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"in\.csv: its header is not UTF-8: name its encoding"):
        open_files(str(path))
