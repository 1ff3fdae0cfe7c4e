"""The parameters of a retraining, which repeat those of the first training on another table."""

from __future__ import annotations

import contextlib
import sqlite3
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from pipeline.errors import DataError, InvalidParameter
from pipeline.monitoring.actions import training_params
from pipeline.monitoring.monitor import _fetch_baseline
from pipeline.monitoring.run_log import MonitoringRun
from pipeline.params.definitions import TrainParams
from pipeline.training.train import train
from registry_tools.mlflow_store import registry
from registry_tools.refs import ModelRef
from tests.support.monitored import run_monitor


def visits(rows: int = 120, seed: int = 0) -> pd.DataFrame:
    """Return a table with a column of each role."""
    random = np.random.default_rng(seed)
    size = random.normal(0, 1, rows)
    return pd.DataFrame(
        {
            "size": size,
            "zip": random.choice(["01000", "02000"], rows),
            "patient": [f"p{row % 20}" for row in range(rows)],
            "weight": random.integers(1, 4, rows),
            "day": [f"2026-01-{row // 6 + 1:02}" for row in range(rows)],
            "room": "a",
            "ill": np.where(size + random.normal(0, 0.3, rows) > 0, "yes", "no"),
        }
    )


def retraining(first: TrainParams, table: Path | str) -> TrainParams:
    """Train a version, and return the parameters that retrain it on another table."""
    train(first)
    watched = registry.get_version(MlflowClient(), ModelRef(first.name, version=1))
    return training_params(watched, _fetch_baseline(MlflowClient(), watched), first.name, str(table))


def first_training(folder: Path, **values: Any) -> TrainParams:
    visits().to_csv(folder / "first.csv", index=False)
    options = {"target": "ill", "name": "visits", "cv": "2", "plots": False, "stage": "production"}
    return TrainParams(data=str(folder / "first.csv"), **options | values)


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("drop", [("room",), ("room", "day")])
def test_a_version_trained_with_times_is_retrained_with_times(drop: tuple[str, ...], tmp_path: Path) -> None:
    first = first_training(tmp_path, time="day", weight="weight", drop=drop, test_size=24)
    visits(240, seed=1).assign(day=lambda t: [f"2026-02-{n // 12 + 1:02}" for n in range(len(t))]).to_csv(
        tmp_path / "grown.csv", index=False
    )
    params = retraining(first, tmp_path / "grown.csv")
    assert (params.time, params.weight, params.test_size) == ("day", "weight", 24)
    assert set(params.drop) == {*drop}
    result = train(params)
    assert (result.version, result.holdout_rows) == (2, 24)


@pytest.mark.usefixtures("store")
def test_groups_weights_and_types_are_repeated(tmp_path: Path) -> None:
    first = first_training(
        tmp_path,
        group="patient",
        weight="weight",
        drop=("day", "room"),
        dtypes={"zip": "text", "room": "text"},
        test_size=24,
    )
    grown = visits(240, seed=1).drop(columns="room")
    grown.to_csv(tmp_path / "grown.csv", index=False)
    params = retraining(first, tmp_path / "grown.csv")
    assert (params.group, params.weight, params.split) == ("patient", "weight", "hash")
    assert (params.dtypes, params.drop, params.test_size) == ({"zip": "text"}, ("day",), 0.2)
    assert train(params).version == 2


@pytest.mark.usefixtures("store")
def test_a_table_of_the_same_kind_is_read_as_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLINIC", f"sqlite:///{tmp_path}/clinic.db")
    for name, rows in (("first", 120), ("grown", 240)):
        table = visits(rows)[["size", "weight", "ill"]]
        with contextlib.closing(sqlite3.connect(tmp_path / "clinic.db")) as database:
            table.to_sql(name, database, index=False)
        table.to_csv(tmp_path / f"{name}.csv", index=False, sep=";", decimal=",")
        table.to_parquet(tmp_path / f"{name}.parquet")
    (tmp_path / "parts").mkdir()
    table.to_parquet(tmp_path / "parts" / "0.parquet")
    options = {"target": "ill", "name": "visits", "cv": "2", "plots": False}
    query = "sql:SELECT size, weight, ill FROM grown ORDER BY rowid"
    first = TrainParams(data=query.replace("grown", "first"), connection="CLINIC", **options)
    params = retraining(first, query)
    assert (params.data, params.connection) == (query, "CLINIC")
    assert train(params).version == 2
    first = first_training(tmp_path, separator=";", decimal=",", drop="weight", name="sizes")
    visits()[["size", "weight", "ill"]].to_csv(tmp_path / "first.csv", index=False, sep=";", decimal=",")
    params = retraining(first, tmp_path / "grown.csv")
    assert (params.separator, params.decimal, params.drop) == (";", ",", ("weight",))
    watched = registry.get_version(MlflowClient(), ModelRef("sizes", version=1))
    baseline = _fetch_baseline(MlflowClient(), watched)
    for parquet in ("grown.parquet", "parts"):
        assert training_params(watched, baseline, "sizes", str(tmp_path / parquet)).separator == ","
    with pytest.raises(InvalidParameter, match="connection=none: a query"):
        training_params(watched, baseline, "sizes", query)


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(("role", "lacking"), [("time", "day"), ("group", "patient"), ("weight", "weight")])
def test_a_table_without_a_column_of_a_role_is_refused_before_the_retraining(
    role: str, lacking: str, tmp_path: Path
) -> None:
    first = first_training(tmp_path, drop=("room", "day"), **{role: lacking})
    visits().drop(columns=lacking).to_csv(tmp_path / "grown.csv", index=False)
    with pytest.raises(DataError, match=f"no column '{lacking}', a column of groups, times or weights"):
        retraining(first, tmp_path / "grown.csv")


@pytest.mark.slow
@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("parameter", ["metric", "threshold"])
def test_a_function_that_a_version_names_is_not_run(
    parameter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = tmp_path / "written"
    code = f"from pathlib import Path\n\ndef score(*_):\n    Path({str(written)!r}).touch()\n    return 1.0\n"
    (tmp_path / f"hostile_{parameter}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    first = first_training(tmp_path, **{parameter: f"hostile_{parameter}:score"}, drop=("day", "room"))
    train(first)
    assert written.exists()  # the user of the training named it
    written.unlink()
    rows = visits(240, seed=1).assign(size=lambda table: table["size"] + 3)
    rows.to_csv(tmp_path / "now.csv", index=False)
    result = run_monitor("visits", tmp_path / "now.csv", retrain=str(tmp_path / "now.csv"))
    (action,) = result.actions
    assert (action.action, action.outcome) == ("retrain", "failed")
    assert (
        f"was trained with {parameter}=hostile_{parameter}:score, and the monitor runs no" in action.message
    )
    assert not written.exists()
    later = MonitoringRun(MlflowClient(), "visits", {})
    assert later.lock_retraining("production", timedelta(days=1)) is None
