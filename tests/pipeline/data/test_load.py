"""Training tables from other files than one plain CSV, and from SQL queries."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipeline.data.load import load_dataset
from pipeline.errors import DataError, InvalidParameter
from pipeline.params.definitions import TrainParams
from pipeline.training.train import train

ROWS = [(number % 7 + 0.5, ["low", "high"][number % 7 > 3]) for number in range(60)]
QUERY = "sql:SELECT size, kind FROM sales -- all\nORDER BY rowid"


def params(data: Path | str, **how: str) -> TrainParams:
    return TrainParams(data=str(data), target="kind", name="own", **how)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database, whose URL is in the variable SHOP; return the URL."""
    file = tmp_path / "private.db"
    with sqlite3.connect(file) as made:
        made.execute("CREATE TABLE sales (size REAL, kind TEXT)")
        made.executemany("INSERT INTO sales VALUES (?, ?)", ROWS)
    made.close()
    monkeypatch.setenv("SHOP", f"sqlite:///{file}")
    return f"sqlite:///{file}"


def test_the_same_rows_from_any_source_are_the_same_dataset(tmp_path: Path, shop: str) -> None:
    lines = [f"{str(size).replace('.', ',')};{kind}" for size, kind in ROWS]
    (tmp_path / "german.csv").write_text("\n".join(["size;kind", *lines]))
    (tmp_path / "parts").mkdir()
    for part in range(2):
        rows = [f"{size},{kind}" for size, kind in ROWS[part * 30 :][:30]]
        (tmp_path / "parts" / f"{part}.csv").write_text("\n".join(["size,kind", *rows]))
    sources = (
        params(tmp_path / "german.csv", separator=";", decimal=","),
        params(tmp_path / "parts"),
        params(QUERY, connection="SHOP"),
    )
    found = [load_dataset(source) for source in sources]
    assert len({dataset.rows_digest() for dataset in found}) == 1
    assert len({dataset.digest for dataset in found}) == 3
    assert [source.source().name for source in sources] == ["german", "parts", "query"]
    assert params("s3://a/b.csv.gz").source().name == params("/a/b.parquet").source().name == "b"


def test_the_name_of_a_table_at_a_url_has_no_options_of_the_address() -> None:
    for ending in ("csv", "csv.gz", "parquet"):
        url = f"s3://bucket/sales.{ending}?endpoint_override=minio:9000&scheme=http"
        assert params(url).source().name == "sales"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"data": "a.csv", "separator": ";;"}, "separator=;;: the separator ';;' is not one ASCII character"),
        ({"data": "a.csv", "decimal": ","}, "separator=,: the separator ',' is the decimal mark as well"),
        ({"data": "a.csv", "decimal": ";"}, "decimal=;: must be . or ,"),
        ({"data": "a.csv", "encoding": "klingon"}, "encoding=klingon: Python has no encoding 'klingon'"),
        ({"data": "a.pq", "separator": ";"}, r"separator=;: is for CSV files only (data=a.pq)"),
        (
            {"data": "s3://b/a.parquet?region=eu", "encoding": "cp1252"},
            "encoding=cp1252: is for CSV files only (data=s3://b/a.parquet)",
        ),
        ({"data": "a.csv", "connection": "SHOP"}, "connection=SHOP: a query (data=sql:…) needs the name"),
        ({"data": QUERY, "connection": "sqlite:///a.db"}, "connection=…: must be the name of an environment"),
        ({"connection": "sqlite:///a.db"}, "connection=…: must be the name of an environment variable"),
        ({"data": QUERY}, "connection=none: a query (data=sql:…) needs the name of the environment variable"),
        ({"data": QUERY, "connection": "A", "encoding": "cp1252"}, "encoding=cp1252: is for CSV files only"),
        ({"data": "sql:DROP TABLE sales", "connection": "A"}, "data=sql:DROP TABLE sales: the query must be"),
        ({"data": "sql:SELECT 1; SELECT 2", "connection": "A"}, "the query must be one SELECT"),
        ({"data": "https://a/b.csv?token=x"}, "data=https://a/b.csv: must hold no key"),
    ],
)
def test_a_source_that_contradicts_itself_is_refused_before_it_is_read(
    values: dict[str, str], message: str
) -> None:
    with pytest.raises(InvalidParameter) as error:
        TrainParams(**{"target": "kind"} | values)
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["separator", "decimal", "encoding", "connection"])
def test_iris_has_no_source(name: str) -> None:
    values = {"separator": ";", "decimal": ",", "encoding": "cp1252", "connection": "SHOP"}
    with pytest.raises(InvalidParameter, match=f"^{name}={values[name]}: needs data=FILE"):
        TrainParams(**{name: values[name]})


def test_a_table_that_cannot_be_read_is_one_line_with_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "table.xlsx").touch()
    with pytest.raises(DataError, match=r"data=.*table\.xlsx: unknown format; use one of \.csv, \.csv\.gz"):
        load_dataset(params(tmp_path / "table.xlsx"))
    monkeypatch.delenv("SHOP", raising=False)
    with pytest.raises(DataError) as error:
        load_dataset(params(QUERY, connection="SHOP"))
    expected = "data=sql:SELECT size, kind FROM sales -- all ORDER BY rowid: the environment variable SHOP"
    assert str(error.value).startswith(expected)


def test_a_training_on_a_query_records_the_query_and_not_the_database(
    store: str, tmp_path: Path, shop: str
) -> None:
    result = train(params(QUERY, connection="SHOP", cv="2", plots="false"))
    run = MlflowClient().get_run(result.run_id)
    assert run.data.params["data"] == QUERY
    assert run.data.params["connection"] == "SHOP"
    assert "separator" not in run.data.params
    assert "ORDER BY rowid" in run.inputs.dataset_inputs[0].dataset.source
    kept = [file for file in tmp_path.rglob("*") if file.is_file() and file.name != "private.db"]
    assert len(kept) > 5
    assert [file for file in kept if b"private.db" in file.read_bytes()] == []
