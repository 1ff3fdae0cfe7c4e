"""Tables from CSV of any form, compressed files, folders and URLs, with their digests."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import importlib.util
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from registry_tools.errors import InputError, UnsupportedOperation
from registry_tools.files.csv_rows import CsvFormat
from registry_tools.files.table_source import TableSource, read_columns, read_source

GERMAN = "größe;preis;art\n1,5;2;groß\n2,5;3;klein\n"


def read(path: Path | str, **how: str) -> pd.DataFrame:
    return read_source(TableSource(str(path), CsvFormat(**how)))[0]


def test_separator_decimal_comma_and_encoding_of_a_csv_are_read(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text(GERMAN, encoding="cp1252")
    source = TableSource(str(path), CsvFormat(";", "cp1252", ","))
    table, digest = read_source(source)
    assert table.to_dict("list") == {"größe": [1.5, 2.5], "preis": [2, 3], "art": ["groß", "klein"]}
    assert digest == hashlib.sha256(GERMAN.encode()).hexdigest()
    assert read_columns(source) == ["größe", "preis", "art"]
    path.write_text(GERMAN.replace(";", "\t"))
    assert read(path, separator=r"\t", decimal=",")["größe"].tolist() == [1.5, 2.5]


def test_a_compressed_csv_has_the_table_and_digest_of_its_text(tmp_path: Path) -> None:
    text = "a,b\n1,x\n2,y\n"
    (tmp_path / "in.csv").write_text(text)
    (tmp_path / "in.csv.gz").write_bytes(gzip.compress(text[:6].encode()) + gzip.compress(text[6:].encode()))
    plain, digest = read_source(TableSource(str(tmp_path / "in.csv")))
    packed, same = read_source(TableSource(str(tmp_path / "in.csv.gz")))
    pd.testing.assert_frame_equal(packed, plain)
    assert same == digest == hashlib.sha256(text.encode()).hexdigest()
    (tmp_path / "in.csv.bz2").write_bytes(bz2.compress(text.encode()))
    with pytest.raises(InputError, match=r"in\.csv\.bz2: unknown format; use one of \.csv, \.csv\.gz"):
        read(tmp_path / "in.csv.bz2")
    (tmp_path / "torn.csv.gz").write_bytes(gzip.compress(text.encode())[:-12])
    with pytest.raises(InputError, match=r"torn\.csv\.gz: cannot be read"):
        read(tmp_path / "torn.csv.gz")


@pytest.mark.parametrize(
    "option", [{"separator": ";"}, {"separator": r"\t"}, {"decimal": "'"}, {"encoding": "cp1252"}]
)
def test_options_of_a_csv_are_refused_for_a_folder_of_parquet_files(
    option: dict[str, str], tmp_path: Path
) -> None:
    pd.DataFrame({"a": [1.5]}).to_parquet(tmp_path / "0.parquet")
    assert read(tmp_path, encoding="utf8")["a"].tolist() == [1.5]  # the default by another name
    ((name, value),) = option.items()
    message = f"{tmp_path}: {name}={value} is for CSV files only, and this is Parquet: leave it out"
    for call in (read_source, read_columns):
        with pytest.raises(InputError) as caught:
            call(TableSource(str(tmp_path), CsvFormat(**option)))
        assert str(caught.value) == message


def test_the_files_of_a_folder_are_one_table_in_sorted_order(tmp_path: Path) -> None:
    folder = tmp_path / "days"
    folder.mkdir()
    (folder / "b.csv").write_text("kind,x,day,paid\nn,3,,True\n,4,2026-01-31,\n")
    (folder / "a.csv.gz").write_bytes(gzip.compress(b"x,kind,day,paid\n1,10,,True\n2.5,11,,False\n"))
    (folder / "c.csv").write_text("x,kind,day,paid\n")
    for hidden in ("_SUCCESS", ".a.csv.crc", "_old.csv"):
        (folder / hidden).write_text("z\n")
    table, digest = read_source(TableSource(str(folder)))
    assert table["x"].tolist() == [1.0, 2.5, 3.0, 4.0]
    # As in one file: a column that is text in a part of the rows is text in all.
    assert table["kind"].tolist()[:3] == ["10", "11", "n"]
    assert table["paid"].tolist()[:3] == [True, False, True]
    assert table["day"].isna().tolist() == [True, True, True, False]
    assert read_columns(TableSource(str(folder))) == ["x", "kind", "day", "paid"]
    (folder / "b.csv").rename(folder / "d.csv")
    assert read_source(TableSource(str(folder)))[1] != digest


def test_a_file_without_any_label_keeps_the_numbers_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("x,y\n1,1.5\n2,2.5\n")
    (tmp_path / "2.csv").write_text("x,y\n3,NA\n4,NA\n")
    source = TableSource(str(tmp_path))
    table, _ = read_source(source, literal_columns=["y"])
    assert table["y"].dtype == float
    assert table["y"].isna().sum() == 2
    (tmp_path / "1.csv").write_text("x,y\n1,None\n2,b\n")
    table, _ = read_source(source, literal_columns=["y"])
    assert table["y"].tolist() == ["None", "b", "NA", "NA"]


def test_parquet_files_of_a_folder_keep_their_types_and_named_index(tmp_path: Path) -> None:
    for number in range(2):
        part = pd.DataFrame({"x": [number, 2]}, index=pd.Index(["a", "b"], name="key"))
        part.to_parquet(tmp_path / f"{number}.parquet")
    source = TableSource(str(tmp_path))
    assert read_source(source)[0].to_dict("list") == {"key": ["a", "b"] * 2, "x": [0, 2, 1, 2]}
    assert read_columns(source) == ["key", "x"]
    pd.DataFrame({"key": ["a"], "x": ["text"]}).set_index("key").to_parquet(tmp_path / "2.parquet")
    with pytest.raises(
        InputError, match=r"/2\.parquet: column 'x' holds .*string, and in .*/0\.parquet int64"
    ):
        read_source(source)


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, r"no file in it ends with \.csv"),
        ({"a.csv": "x,y\n1,2\n", "b.parquet": ""}, "holds CSV and Parquet files: keep one kind"),
        (
            {"a.csv": "x,y\n1,2\n", "b.csv": "x,z\n1,2\n"},
            r"/b\.csv: other columns than in .*a\.csv.* lacks 'y'",
        ),
        ({"a.csv": "x,y\n1,2\n", "b.csv": ""}, r"/b\.csv: it is empty"),
        ({"a.csv": "x,y\n", "b.csv": "x,y\n"}, "it has no rows"),
        ({"a.csv": "x,y\n1,2\n", "b.csv": "x,y\n1,2,3\n"}, r"/b\.csv: some rows have more values"),
        ({"a.csv": GERMAN}, r"/a\.csv: .* one column 'größe;preis;art': set separator=';'"),
        ({"a.csv": "x\ty\n1\t2\n"}, r"set separator='\\t'"),
    ],
)
def test_a_folder_that_is_no_table_is_one_line_that_names_the_file(
    files: dict[str, str], reason: str, tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=reason):
        read(tmp_path)


def test_another_encoding_or_decimal_mark_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes("a,b\n1,groß\n".encode("cp1252"))
    with pytest.raises(
        InputError, match=r"in\.csv: it is not utf-8 text .*: name its encoding, such as cp1252"
    ):
        read(path)
    path.write_text(GERMAN)
    with pytest.raises(InputError, match=r"in\.csv: it is not ascii text"):
        read(path, separator=";", encoding="ascii")
    read(path, separator=";")
    assert "column 'größe' is text such as '1,5': set decimal=, (a comma)" in caplog.text
    with pytest.raises(InputError, match="the separator ',' is the decimal mark as well"):
        CsvFormat(decimal=",")


def test_a_url_is_read_if_a_package_knows_its_scheme(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("a,b\n1,2\n")
    assert read((tmp_path / "in.csv").as_uri()).to_dict("list") == {"a": [1], "b": [2]}
    has_fsspec = importlib.util.find_spec("fsspec") is not None
    reason = "Protocol not known: nosuch" if has_fsspec else r"needs fsspec: install registry-pipeline\[url\]"
    with pytest.raises((InputError, UnsupportedOperation), match=f"nosuch://host/in.csv: .*{reason}"):
        read("nosuch://me:key@host/in.csv?token=key")


@pytest.mark.slow  # which installs fsspec
@pytest.mark.parametrize("form", ["csv", "csv.gz", "parquet"])
def test_a_table_is_read_over_http(form: str, tmp_path: Path) -> None:
    pytest.importorskip("fsspec", reason="fsspec is not installed (make test-slow installs it)")
    pytest.importorskip("aiohttp", reason="aiohttp is not installed (make test-slow installs it)")
    table = pd.DataFrame({"a": range(50), "b": ["x", "y"] * 25})
    path = tmp_path / f"in put.{form}"
    table.to_parquet(path) if form == "parquet" else table.to_csv(path, index=False)

    class Handler(SimpleHTTPRequestHandler):
        """Serves the folder, without ranges and without a log."""

        def __init__(self, *how: Any) -> None:
            super().__init__(*how, directory=str(tmp_path))

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        where = f"http://127.0.0.1:{server.server_port}"
        try:
            remote, digest = read_source(TableSource(f"{where}/in%20put.{form}"))
            with pytest.raises(InputError, match=f"{where}/none.csv: there is no such file"):
                read(f"{where}/none.csv")
        finally:
            server.shutdown()
    local, same = read_source(TableSource(str(path)))
    pd.testing.assert_frame_equal(remote, local)
    assert digest == same
