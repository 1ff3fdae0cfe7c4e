"""Warnings of columns that give the label away, and of rows on both sides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.data.leaks import warn_of_leaks
from pipeline.data.load import load_dataset
from pipeline.data.split import split_rows
from pipeline.params.definitions import TrainParams


def warnings_of(table: pd.DataFrame, folder: Path, log: pytest.LogCaptureFixture, **values: object) -> str:
    path = folder / "table.csv"
    table.to_csv(path, index=False)
    params = TrainParams(data=str(path), target="kind", name="own", **values)
    dataset = load_dataset(params)
    log.clear()
    train, holdout = split_rows(dataset, params)
    warn_of_leaks(dataset.take(train), dataset.take(holdout), params)
    return log.text


def table_of(rows: int = 200) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(rows, 2)), columns=["x", "y"])
    return table.assign(colour=rng.choice(["red", "blue"], rows), kind=rng.choice(["no", "yes"], rows))


def test_a_column_that_is_the_label_under_another_name_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = table_of()
    found = warnings_of(table.assign(copy=table["kind"] == "yes"), tmp_path, caplog)
    assert "column 'copy' is equal to the label" in found
    assert """leave it out with --drop copy, or with drop: ["copy"] in a file""" in found
    assert found.count("WARNING") == 1


@pytest.mark.parametrize("kind", ["number", "text"])
def test_a_column_that_predicts_almost_perfectly_is_reported(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = table_of()
    is_yes = table["kind"] == "yes"
    number = np.where(is_yes, 5.0, -5.0) + np.random.default_rng(1).normal(size=200)
    text = np.where(is_yes, "late", np.where(table["x"] > 0, "early", "soon"))
    leaking = table.assign(after=number if kind == "number" else text)
    found = warnings_of(leaking, tmp_path, caplog)
    assert "column 'after' alone predicts the label almost perfectly" in found
    assert found.count("WARNING") == 1


def test_a_holdout_of_few_different_rows_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = table_of()[["colour", "kind"]].assign(size=[10, 20, 30, 40] * 50)
    found = warnings_of(table, tmp_path, caplog)
    assert "different values: equal rows stay on one side of the split" in found


def test_iris_gives_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    dataset = load_dataset(TrainParams())
    train, holdout = split_rows(dataset, TrainParams())
    warn_of_leaks(dataset.take(train), dataset.take(holdout), TrainParams())
    assert caplog.text == ""


def test_rows_that_another_group_or_time_has_too_are_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = table_of(20)
    both = pd.concat([table.assign(patient=number) for number in range(10)])
    assert "40 of 40 held-out rows equal training rows of another group" in warnings_of(
        both, tmp_path, caplog, group="patient"
    )
    stored_again = both.rename(columns={"patient": "day"})
    assert "40 of 40 held-out rows equal training rows of another time" in warnings_of(
        stored_again, tmp_path, caplog, time="day", drop=("day",)
    )
    assert "held-out rows equal" not in warnings_of(both.drop(columns="patient"), tmp_path, caplog)
