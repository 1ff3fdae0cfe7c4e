"""Where the file of an SQLite store is, and how a new one is made."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from registry_tools.mlflow_store import sqlite_store


def test_a_store_in_a_folder_with_a_space_is_where_mlflow_looks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "my project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    uri = mlflow.get_tracking_uri()
    assert "%20" in uri
    new = sqlite_store.check_writable(uri)
    assert new == folder / "mlflow.db"
    sqlite_store.create(new)
    assert sqlite_store.missing_database(uri) is None
    MlflowClient(uri, uri).create_experiment("there")
    assert not (tmp_path / "my%20project" / "mlflow.db").exists()


def test_a_store_is_created_on_a_file_system_without_hard_links_and_never_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    database = tmp_path / "mlflow.db"
    sqlite_store.create(database)
    uri = f"sqlite:///{database}"
    experiment = MlflowClient(uri, uri).create_experiment("first")
    sqlite_store.create(database)  # by a client that looked before the first had created it
    assert MlflowClient(uri, uri).get_experiment(experiment).name == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]
