"""Columns of production data that are renamed, constant, or of another type than in training."""

from __future__ import annotations

import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pipeline.errors import DataError
from pipeline.monitoring import analysis
from pipeline.monitoring.data.window import CurrentWindow
from pipeline.params.definitions import TrainParams
from pipeline.training import baseline
from pipeline.training.baseline import NumericProfile
from pipeline.training.train import train
from registry_tools.stats.metric import Outcomes
from tests.support.monitored import (
    SHIFTED,
    LogPart,
    flowers,
    last_run,
    monitor_output,
    run_monitor,
    run_of,
    write_log,
)
from tests.support.registries import Place

NUMBERS = NumericProfile(0, 0, ())


def words(counts: dict[str, int]) -> pd.DataFrame:
    return pd.DataFrame({"word": [name for name, count in counts.items() for _ in range(count)]})


def found_in(before: pd.DataFrame, now: pd.DataFrame) -> analysis.FeatureDrift:
    """Return the drift of the only feature of two tables, without a store."""
    line = np.array(["cat"] * 20, dtype=object)
    own = baseline.make_baseline(before, "kind", Outcomes(line, line))
    window = CurrentWindow(pa.Table.from_pandas(now, preserve_index=False), None, None)
    return analysis.analyse_window(1, own, window, None, 20, 0.01).features[0]


def test_rows_of_categories_that_the_training_did_not_have_are_counted() -> None:
    before = words({"red": 60, "green": 40})
    feature = found_in(before, words({"red": 60, "blue": 7, "": 3, "green": 30}))
    assert (feature.unseen_rows, feature.is_numeric) == (10, False)
    assert feature.psi > 0
    assert len(feature.psi_over_time) == 2


def test_values_outside_the_profile_are_one_category() -> None:
    many = {f"word {n}": 1 for n in range(3000)}
    feature = found_in(words(many), words({f"another {n}": 1 for n in range(300)}))
    assert feature.unseen_rows is None  # it cannot be known
    assert found_in(words(many), words(many)).psi == pytest.approx(0, abs=0.01)


def test_a_renamed_column_is_reported_with_both_names(
    local: Place, model: str, tmp_path: Path, capsys: Any
) -> None:
    rows, right = flowers()
    renamed = rows.rename(columns={SHIFTED: "sepal_length"})
    renamed.to_csv(tmp_path / "now.csv", index=False)
    log = write_log(tmp_path / "log", model, LogPart(1, renamed, right))
    for current in ("now.csv", log):
        (line,) = monitor_output(capsys, "--name", model, "--current", current, code=1)
        assert line == (
            f"pipeline: error: the rows have no column '{SHIFTED}', which the version needs; "
            "they have 'sepal_length' instead: was it renamed?"
        )
    run = last_run(local, model)
    assert run.info.status == "FAILED"
    assert SHIFTED in run.data.tags["error"]


def test_missing_columns_are_all_named(local: Place, model: str, tmp_path: Path, capsys: Any) -> None:
    flowers()[0].iloc[:, 2:].to_csv(tmp_path / "now.csv", index=False)
    (line,) = monitor_output(capsys, "--name", model, "--current", "now.csv", code=1)
    assert f"the rows have no columns '{SHIFTED}', 'sepal width (cm)', which the version" in line
    assert "instead" not in line


def test_a_column_that_the_training_did_not_have_does_not_matter(
    local: Place, model: str, tmp_path: Path
) -> None:
    rows = flowers()[0].assign(id=range(240), note="x")
    rows.to_csv(tmp_path / "now.csv", index=False)
    assert run_monitor(model, tmp_path / "now.csv").analysis.verdict() == "none"


@pytest.mark.parametrize("form", ["csv", "log"])
def test_text_in_a_numeric_column_is_reported_in_one_line(
    form: str, local: Place, model: str, tmp_path: Path, capsys: Any
) -> None:
    rows, right = flowers()
    rows[SHIFTED] = "5,1"
    if form == "csv":
        rows.to_csv(tmp_path / "now.csv", index=False)
    else:
        write_log(tmp_path / "log", model, LogPart(1, rows, right))
    current = "now.csv" if form == "csv" else "log"
    (line,) = monitor_output(capsys, "--name", model, "--current", current, code=1)
    assert f"column '{SHIFTED}', row 0: '5,1' is not a number" in line
    assert last_run(local, model).info.status == "FAILED"


def test_text_is_read_as_the_shared_coercion_reads_it() -> None:
    def values(*texts: str) -> list[float]:
        table = pa.table({"x": pa.array(texts).dictionary_encode()})
        return CurrentWindow(table, None, None).column("x", NUMBERS).tolist()

    assert values("1", "inf") == [1, np.inf]
    np.testing.assert_equal(values(" 1.5 ", "NA", "-inf"), [1.5, np.nan, -np.inf])
    with pytest.raises(DataError, match=r"column 'x', row 2: 'n\.k\.' is not a number"):
        values("1", "inf", "n.k.")
    dates = CurrentWindow(pa.table({"x": pa.array([0], pa.timestamp("s"))}), None, None)
    with pytest.raises(DataError, match="column 'x' is of type timestamp"):
        dates.column("x", NUMBERS)


@pytest.mark.usefixtures("drawn")
def test_features_that_became_constant_are_drift(local: Place, model: str, tmp_path: Path) -> None:
    rows, right = flowers()
    for name in rows:
        rows[name] = 5.0
    found = run_monitor(model, write_log(tmp_path / "log", model, LogPart(1, rows, right))).analysis
    assert set(rows.columns) <= set(found.where().split(", "))


@pytest.mark.usefixtures("drawn")
def test_a_column_without_any_value_is_drift(local: Place, model: str, tmp_path: Path) -> None:
    rows, right = flowers()
    rows["petal width (cm)"] = np.nan
    rows["petal length (cm)"] = None
    found = run_monitor(model, write_log(tmp_path / "log", model, LogPart(1, rows, right))).analysis
    assert set(rows.columns[2:]) <= set(found.where().split(", "))
    assert {f.current_missing for f in found.features if "petal" in f.name} == {1.0}


def test_decimals_are_numbers(local: Place, model: str, tmp_path: Path) -> None:
    rows, right = flowers()  # as a table of a database has them; a training takes them as well
    cents = {name: [Decimal(f"{value:.2f}") for value in rows[name]] for name in rows}
    log = write_log(tmp_path / "log", model, LogPart(1, pd.DataFrame(cents), right))
    found = run_monitor(model, log).analysis
    assert (found.verdict(), found.where()) == ("none", "")


@pytest.mark.slow
@pytest.mark.usefixtures("drawn")
def test_infinite_values_are_numbers(local: Place, model: str, tmp_path: Path) -> None:
    rows, right = flowers()
    rows.loc[:99, SHIFTED] = np.inf
    found = run_monitor(model, write_log(tmp_path / "log", model, LogPart(1, rows, right))).analysis
    assert found.where().split(", ")[0] == SHIFTED


def animals(count: int = 400, seed: int = 1) -> tuple[pd.DataFrame, list[str]]:
    """Return rows with text and booleans, some with missing values, and their correct labels."""
    random = np.random.default_rng(seed)
    dog = random.random(count) < 0.5
    tame = np.where(random.random(count) < 0.1, None, random.random(count) < 0.6)
    colour = np.where(random.random(count) < 0.5, "brown", "grey").astype(object)
    rows = pd.DataFrame(
        {
            "weight": np.where(dog, 20.0, 4.0) + random.normal(0, 1.5, count),
            "colour": np.where(random.random(count) < 0.1, None, colour),
            "sold": random.random(count) < 0.5,
            "tame": tame,
            "age": random.integers(1, 15, count),
        }
    )
    return rows, ["dog" if each else "cat" for each in dog]


@pytest.fixture(scope="session")  # a worker comes back to a module that it has left
def zoo(sqlite_place: Place, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model with text and boolean features, whose second version has another column."""
    name, folder = f"zoo-{os.getpid()}", tmp_path_factory.mktemp("zoo")
    rows, right = animals(600, seed=0)
    mlflow.set_tracking_uri(sqlite_place.uri)
    try:
        for number, table in enumerate((rows.drop(columns="age"), rows)):
            path = folder / f"{number}.csv"
            table.assign(kind=right).to_csv(path, index=False)
            stage = "production" if number == 0 else "next"
            train(TrainParams(data=str(path), target="kind", name=name, stage=stage, plots=False))
    finally:
        mlflow.set_tracking_uri(None)
    return name


def animals_log(folder: Path, name: str, rows: pd.DataFrame, right: list[str]) -> Path:
    return write_log(folder, name, LogPart(1, rows.drop(columns="age", errors="ignore"), right))


@pytest.mark.slow
def test_text_and_booleans_with_missing_values_are_compared(local: Place, zoo: str, tmp_path: Path) -> None:
    rows, right = animals()
    result = run_monitor(zoo, animals_log(tmp_path / "log", zoo, rows, right))
    assert result.analysis.verdict() == "none"
    unseen = {feature.name: feature.unseen_rows for feature in result.analysis.features}
    assert unseen == {"weight": None, "colour": 0, "sold": 0, "tame": 0}
    rows["colour"] = np.where(np.arange(400) % 3 == 0, "blue", rows["colour"])
    rows["tame"] = None
    result = run_monitor(zoo, animals_log(tmp_path / "other", zoo, rows, right))
    assert {"colour", "tame"} <= set(result.analysis.where().split(", "))
    assert {f.name: f.unseen_rows for f in result.analysis.features}["colour"] == 134


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "scored"])
def test_booleans_are_read_from_csv_as_from_parquet(
    kind: str, local: Place, zoo: str, tmp_path: Path
) -> None:
    rows, right = animals()
    if kind == "scored":
        rows = rows.assign(prediction_name=right, prediction=0, model_version=1)
    rows.to_csv(tmp_path / "now.csv", index=False)
    found = run_monitor(zoo, tmp_path / "now.csv").analysis
    assert (found.verdict(), found.where()) == ("none", "")


@pytest.mark.slow
def test_a_new_version_with_another_column_is_unknown_without_predictions(
    local: Place, zoo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = animals_log(tmp_path / "log", zoo, *animals())
    result = run_monitor(zoo, log, stage="next")
    assert (result.analysis.version, result.analysis.verdict(), result.analysis.rows) == (2, "unknown", 0)
    assert [(found.version, found.verdict()) for found in result.other_versions] == [(1, "none")]


@pytest.mark.slow
@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize("category", ["$_$", "汉字", "x" * 300])
def test_a_category_of_any_spelling_is_drawn(category: str, local: Place, zoo: str, tmp_path: Path) -> None:
    rows, right = animals()
    rows["colour"] = category
    result = run_monitor(zoo, animals_log(tmp_path / "log", zoo, rows, right))
    assert "colour" in result.analysis.where()
    assert run_of(local, result).info.status == "FINISHED"


def test_one_word_among_numbers_is_named(local: Place, model: str, tmp_path: Path, capsys: Any) -> None:
    rows = flowers()[0].astype({SHIFTED: object})
    rows.loc[30, SHIFTED] = "n.k."
    rows.to_csv(tmp_path / "now.csv", index=False)
    (line,) = monitor_output(capsys, "--name", model, "--current", "now.csv", code=1)
    assert "row 30: 'n.k.' is not a number" in line


# Dates and times.


def orders(first_day: int, days: int, seed: int) -> pd.DataFrame:
    """Return 50 rows of each day, with a label that does not depend on the day."""
    x = np.random.default_rng(seed).normal(0, 1, 50 * days)
    number = np.repeat(np.arange(first_day, first_day + days), 50)
    day = [f"{pd.Timestamp('2026-01-01') + pd.Timedelta(days=int(n)):%Y-%m-%d}" for n in number]
    return pd.DataFrame({"x": x, "day": day, "number": number, "y": np.where(x > 0, "yes", "no")})


@pytest.mark.usefixtures("drawn", "store")
@pytest.mark.parametrize(
    ("column", "time"),
    [("day", None), pytest.param("day", "day", marks=pytest.mark.slow), ("number", "number")],
)
def test_later_dates_and_times_are_no_drift(column: str, time: str | None, tmp_path: Path) -> None:
    names = ["x", column, "y"]
    orders(0, 20, seed=0)[names].to_csv(tmp_path / "orders.csv", index=False)
    options = {"name": "orders", "stage": "production", "cv": "2", "plots": False, "time": time}
    train(TrainParams(data=str(tmp_path / "orders.csv"), target="y", **options))
    now = orders(20, 7, seed=1)[names].drop(columns="y")
    now.to_csv(tmp_path / "now.csv", index=False)
    result = run_monitor("orders", tmp_path / "now.csv")
    assert result.analysis.verdict() == "none"
    assert [feature.name for feature in result.analysis.features] == ["x"]
    assert f"{column} holds dates or times: only its missing values are tested" in result.notes
    now.loc[::2, column] = None
    now.to_csv(tmp_path / "now.csv", index=False)
    if column == "day":  # a version refuses a missing number that no training row lacked
        assert run_monitor("orders", tmp_path / "now.csv").analysis.where() == column


@pytest.mark.usefixtures("drawn", "store")
def test_a_version_that_learns_from_dates_alone_is_monitored(tmp_path: Path) -> None:
    orders(0, 20, seed=0)[["day", "y"]].to_csv(tmp_path / "orders.csv", index=False)
    train(
        TrainParams(data=str(tmp_path / "orders.csv"), target="y", name="orders", stage="production", cv="2")
    )
    now = orders(20, 7, seed=1)[["day"]]
    now.to_csv(tmp_path / "now.csv", index=False)
    assert run_monitor("orders", tmp_path / "now.csv").analysis.features == ()
