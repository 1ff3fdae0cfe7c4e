"""Tables that are the result of a SQL query: their types, and no word of the database's address."""

from __future__ import annotations

import datetime
import sqlite3
import traceback
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pytest
import sqlalchemy as sa

from registry_tools.errors import InputError
from registry_tools.files.sql_query import check_query
from registry_tools.files.table_source import TableSource, read_columns, read_source
from tests.support.postgres import has_postgres, postgres


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as made:
        made.execute("CREATE TABLE sales (id INTEGER, price REAL, kind TEXT, note BLOB)")
        rows = [(1, 2.5, "100%", b"x"), (2, None, ":a", None), (None, 3.5, None, None)]
        made.executemany("INSERT INTO sales VALUES (?, ?, ?, ?)", rows)
    made.close()
    monkeypatch.setenv("SHOP", f"sqlite:///{path}")
    return path


def source(query: str, connection: str = "SHOP") -> TableSource:
    return TableSource(f"sql:{query}", connection=connection)


def test_a_query_is_a_table_with_the_digest_of_its_rows(database: Path) -> None:
    every = "SELECT * FROM sales WHERE kind LIKE '%' OR kind IS NULL ORDER BY price; -- all"
    table, digest = read_source(source(every))
    assert list(table) == read_columns(source(every)) == ["id", "price", "kind", "note"]
    assert table["price"].tolist()[1:] == [2.5, 3.5]
    assert table["id"].dtype == float  # as of a Parquet file with missing values
    assert table["kind"].tolist()[:2] == [":a", "100%"]
    assert read_source(source("SELECT * FROM sales ORDER BY price"))[1] == digest
    assert read_source(source("SELECT * FROM sales ORDER BY price DESC"))[1] != digest
    assert read_source(source("SELECT id, price, kind AS type FROM sales ORDER BY price"))[1] != digest


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("SELECT * FROM sold", "the query failed: no such table: sold"),
        ("SELECT * FROM sales WHERE id > 9", "the query returned no rows"),
        ("SELECT id, id FROM sales", "column 'id' stands twice"),
        ("SELECT id FROM sales UNION ALL SELECT kind FROM sales", "column 'id' .* type int, str: convert it"),
        ("DROP TABLE sales", "the query must be one SELECT"),
        ("", "the query must be one SELECT"),
        ("SELECT 1; DELETE FROM sales", "the query must be one SELECT"),
        ("WITH a AS (SELECT 1) DELETE FROM sales", "must only read, and it holds DELETE"),
    ],
)
def test_a_query_that_gives_no_table_is_one_line(query: str, reason: str, database: Path) -> None:
    with pytest.raises(InputError, match=reason) as error:
        read_source(source(query))
    assert "\n" not in str(error.value)
    assert str(database) not in "".join(traceback.format_exception(error.value))


def test_words_and_marks_in_quotes_and_comments_are_no_commands() -> None:
    check_query("-- first\nSELECT \"delete\", 'a; DROP b' /* ; update */ FROM t;")
    check_query("with a as (select 'it''s; into') select * from a")


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        (None, "the environment variable SHOP, which names the database, is not set: set it"),
        ("secret", "SHOP holds no SQLAlchemy URL such as"),
        ("nosuch://me:secret@host/db", "SHOP holds no SQLAlchemy URL such as"),
        ("mysql+pymysql://me:secret@host/db", "SHOP needs the package pymysql, which is not installed"),
        ("postgresql+psycopg2://me:secret@127.0.0.1:1/db", "the query failed: connection to server"),
        ("postgresql+psycopg2://me@127.0.0.1:1/db?sslmode=secret", "the query failed: invalid sslmode"),
        ("sqlite:///secret.db", "SHOP names an SQLite file that does not exist"),
    ],
)
def test_no_message_or_traceback_has_the_address_of_the_database(
    address: str | None, reason: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SHOP", raising=False)
    if address is not None:
        monkeypatch.setenv("SHOP", address)
    with pytest.raises(InputError, match=reason) as error:
        read_source(source("SELECT 1 AS a"))
    assert "secret" not in "".join(traceback.format_exception(error.value))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow  # starts PostgreSQL
@pytest.mark.skipif(not has_postgres(), reason="pgserver has no wheel for this Python")
def test_types_of_postgresql_are_those_of_a_parquet_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = pd.DataFrame(
        {
            "price": [Decimal("1.50"), None, Decimal("22.25")],
            "day": [datetime.date(2026, 1, 31), None, datetime.date(2026, 2, 1)],
            "at": pd.to_datetime(["2026-01-31 12:30", None, "2026-02-01 00:00"]),
            "paid": [True, None, False],
            "number": [1.0, None, 3.0],
            "kind": ["50%", None, "b"],
            "raw": [b"x", None, b"z"],
        }
    )
    rows.to_parquet(tmp_path / "rows.parquet")
    with postgres() as running:
        monkeypatch.setenv("SHOP", running.make("shop"))
        engine = sa.create_engine(running.uri("shop"))
        with engine.begin() as opened:
            opened.exec_driver_sql(
                "CREATE TABLE sales (price numeric(6, 2), day date, at timestamp, paid boolean,"
                " number integer, kind text, raw bytea)"
            )
            opened.exec_driver_sql("CREATE FUNCTION add_row() RETURNS integer LANGUAGE sql AS"
                " 'INSERT INTO sales (number) VALUES (9) RETURNING number'")  # fmt: skip
            opened.exec_driver_sql(
                "INSERT INTO sales VALUES (1.50, '2026-01-31', '2026-01-31 12:30', true, 1, '50%%', 'x'),"
                " (null, null, null, null, null, null, null),"
                " (22.25, '2026-02-01', '2026-02-01', false, 3, 'b', 'z')"
            )
        engine.dispose()
        found, _ = read_source(source("SELECT * FROM sales"))
        expected, _ = read_source(TableSource(str(tmp_path / "rows.parquet")))
        pd.testing.assert_frame_equal(found, expected, check_dtype=False)
        assert [column.dtype.kind for _, column in found.items()] == [
            column.dtype.kind for _, column in expected.items()
        ]
        assert read_columns(source("SELECT price, kind FROM sales")) == ["price", "kind"]
        with pytest.raises(InputError, match=r"the query failed: .*read-only transaction"):
            read_source(source("SELECT add_row() AS a"))
