"""On a server with workspaces the same policy holds in each of them."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.gated import gated_server, refusal, write_policy

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workspaces")


@pytest.fixture(scope="module")
def address(empty_database: Path, folder: Path) -> Iterator[str]:
    write_policy(folder)
    with gated_server(empty_database, folder, "--enable-workspaces", with_users=False) as running:
        yield running.uri


def send(address: str, method: str, path: str, workspace: str | None = None, **body: Any) -> httpx.Response:
    headers = {"X-MLFLOW-WORKSPACE": workspace} if workspace else {}
    return httpx.request(method, f"{address}/api/{path}", json=body, headers=headers, timeout=120)


def test_a_stage_in_a_workspace_is_protected(address: str) -> None:
    assert send(address, "POST", "3.0/mlflow/workspaces", name="team-a").status_code < 300
    for workspace in ("default", "team-a"):
        body: dict[str, Any] = {"name": "iris"}
        assert (
            send(address, "POST", "2.0/mlflow/registered-models/create", workspace, **body).status_code == 200
        )
    experiment = send(address, "POST", "2.0/mlflow/experiments/create", "team-a", name="e")
    made = send(
        address, "POST", "2.0/mlflow/runs/create", "team-a", experiment_id=experiment.json()["experiment_id"]
    )
    run = made.json()["run"]["info"]
    body |= {"source": f"{run['artifact_uri']}/one", "run_id": run["run_id"]}
    answer = send(address, "POST", "2.0/mlflow/model-versions/create", "team-a", **body)
    assert answer.status_code == 200, answer.text
    move = {"name": "iris", "alias": "production", "version": "1"}
    answer = send(address, "POST", "2.0/mlflow/registered-models/alias", "team-a", **move)
    assert answer.status_code == 403
    assert "it has no digest" in answer.json()["message"]
    answer = send(address, "POST", "2.0/mlflow/registered-models/alias", "default", **move)
    assert answer.status_code == 404


@pytest.mark.parametrize(
    "row",
    [
        "registered_model_tags (workspace, name, key, value) values ('w2', 'iris', 'head.production', '1')",
        # It has this alias from before the registry was gated.
        "registered_model_aliases (workspace, name, alias, version) values ('w2', 'iris', 'production', 1)",
    ],
    ids=["moved", "held"],
)
def test_a_model_with_a_protected_stage_is_not_deleted_with_its_workspace(
    row: str, address: str, folder: Path
) -> None:
    send(address, "POST", "3.0/mlflow/workspaces", name="w2")
    send(address, "POST", "2.0/mlflow/registered-models/create", "w2", name="iris")
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as connection, connection:
        connection.execute("delete from registered_model_tags where workspace = 'w2'")
        connection.execute(f"insert into {row}")
    url = f"{address}/api/3.0/mlflow/workspaces/w2"
    answer = httpx.delete(url, params={"mode": "CASCADE"}, timeout=120)
    assert "iris in workspace w2 has a protected stage" in refusal(answer)
    listed = send(address, "GET", "2.0/mlflow/registered-models/get?name=iris", "w2")
    assert listed.status_code == 200
    send(address, "POST", "3.0/mlflow/workspaces", name="team-c")
    send(address, "POST", "2.0/mlflow/registered-models/create", "team-c", name="iris")
    answer = httpx.delete(
        f"{address}/api/3.0/mlflow/workspaces/team-c", params={"mode": "CASCADE"}, timeout=120
    )
    assert answer.status_code == 204
