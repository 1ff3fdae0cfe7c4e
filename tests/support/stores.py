"""Fixtures: SQLite stores, empty or with trained models, and a table to train on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import sklearn
from mlflow import MlflowClient

from pipeline.params.definitions import TrainParams
from pipeline.training.train import TrainResult, train

_KEPT = {
    "MLFLOW_LOGGING_LEVEL",
    "MLFLOW_DISABLE_TELEMETRY",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR",
}


@pytest.fixture(autouse=True)
def _no_global_state(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Remove tracking URI, active run and MLflow variables before and after each test."""
    for name in list(os.environ):
        if name.startswith("MLFLOW_") and name not in _KEPT:
            monkeypatch.delenv(name)
    with sklearn.config_context():  # a test that predicts as the server does disables checks of scikit-learn
        yield
    while mlflow.active_run():
        mlflow.end_run("KILLED")
    mlflow.set_tracking_uri(None)
    mlflow.set_registry_uri(None)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite store with MLflow's empty tables, made once because it takes seconds."""
    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    create_database(path)
    return path


def create_database(path: Path) -> None:
    """Create a SQLite store with MLflow's empty tables."""
    before = Path.cwd()
    os.chdir(path.parent)  # MLflow creates the artifact folder of the first experiment here
    try:
        MlflowClient(f"sqlite:///{path}").search_registered_models()
    finally:
        os.chdir(before)


@pytest.fixture
def store(empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URI of an empty store in the folder of the test, which is also the working folder."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


@dataclass(frozen=True)
class Trained:
    """A store with two versions of `iris`, the second in staging, for tests that only read."""

    uri: str
    folder: Path
    first: TrainResult
    second: TrainResult


@pytest.fixture(scope="session")
def trained_once(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    shutil.copy(empty_database, folder / "mlflow.db")
    uri = f"sqlite:///{folder}/mlflow.db"
    before = Path.cwd()
    os.chdir(folder)
    mlflow.set_tracking_uri(uri)
    try:
        first, second = train(TrainParams()), train(TrainParams(model="knn", plots=False))
    finally:
        mlflow.set_tracking_uri(None)
        os.chdir(before)
    return Trained(uri, folder, first, second)


@pytest.fixture
def trained(trained_once: Trained, monkeypatch: pytest.MonkeyPatch) -> Trained:
    """The shared store, set as the tracking URI of this process."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", trained_once.uri)
    return trained_once


@pytest.fixture
def table_csv(tmp_path: Path) -> Path:
    """A table with numbers and text with missing values, booleans, and a constant column."""
    rng = np.random.default_rng(7)
    rows = 120
    kind = rng.choice(["cat", "dog"], rows)
    dog = kind == "dog"
    table = pd.DataFrame(
        {
            "weight": np.where(dog, 20.0, 4.0) + rng.normal(0, 1.5, rows),
            "legs": rng.integers(3, 5, rows),
            "size": np.where(dog, 60, 25) + rng.integers(-5, 6, rows),
            "colour": np.where(dog, "brown", "grey"),
            "sold": rng.random(rows) < 0.5,
            "tame": np.where(dog, True, rng.random(rows) < 0.5).astype(object),
            "planet": "earth",
            "kind": kind,
        }
    ).astype({"size": "float64"})
    table.loc[rng.random(rows) < 0.1, "size"] = np.nan
    table.loc[rng.random(rows) < 0.1, "colour"] = None
    table.loc[rng.random(rows) < 0.1, "tame"] = None
    path = tmp_path / "animals.csv"
    table.to_csv(path, index=False)
    return path


@pytest.fixture
def line_csv(tmp_path: Path) -> Path:
    """A table whose label is a number: two columns determine it, one has text and missing values."""
    rng = np.random.default_rng(5)
    rows = 150
    x, z = rng.normal(0, 1, (2, rows))
    size = rng.choice(["small", "large"], rows).astype(object)
    y = 100 + 20 * x - 10 * z + np.where(size == "large", 15, 0) + rng.normal(0, 4, rows)
    table = pd.DataFrame({"x": x, "z": z, "size": size, "y": y})
    table.loc[rng.random(rows) < 0.1, "size"] = None
    path = tmp_path / "line.csv"
    table.to_csv(path, index=False)
    return path
