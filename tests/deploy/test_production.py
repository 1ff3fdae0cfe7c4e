"""The guides to a server for a team are followed: rights, backup and restore, upgrade."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from registry_tools.evaluation.gate_options import GateOptions
from registry_tools.promotion import history, promote, rollback
from registry_tools.refs import ModelRef
from tests.support.constants import LONG, ROOT
from tests.support.documents import fenced
from tests.support.postgres import Postgres, has_postgres, postgres
from tests.support.registries import EQUAL, GOOD, Place
from tests.support.servers import BIN
from tests.support.tracking_servers import account, add_user, guarded_server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not has_postgres(), reason="pgserver has no wheel for this Python"),
]

GUIDES = ("team-server", "back-up-and-restore", "upgrade-mlflow")
DOCUMENT = "\n".join((ROOT / "docs" / "how-to" / f"{name}.md").read_text() for name in GUIDES)
STORE = "postgresql+psycopg2://mlflow@database/mlflow"


def block(language: str, word: str) -> str:
    """Return the only block of the guides that contains a word."""
    (found,) = (text for kind, text in fenced(DOCUMENT) if kind == language and word in text)
    return found


def as_shown(commands: str, database: Postgres, folder: Path) -> None:
    """Run commands of the document in a folder, with the variables of a database."""
    path = f"{BIN}:{database.environment['PATH']}"
    subprocess.run(
        ["bash", "-euc", commands.replace(STORE, database.uri("mlflow"))],
        cwd=folder,
        env={**os.environ, **database.environment, "PATH": path},
        check=True,
        timeout=100,
    )


def promote_version(place: Place, name: str, version: int) -> None:
    ref = ModelRef(name, version=version)
    promote.promote(place.client, ref, "production", GateOptions(margin=0.9), reason="go")


@pytest.fixture
def shared(guarded_place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.chdir(tmp_path)
    for name, value in {"MLFLOW_TRACKING_URI": guarded_place.uri, **guarded_place.environment}.items():
        monkeypatch.setenv(name, value)
    return guarded_place


@LONG
def test_a_backup_restored_elsewhere_is_complete(shared: Place, database: Postgres, tmp_path: Path) -> None:
    name = shared.model(GOOD, EQUAL)
    promote_version(shared, name, GOOD)
    promote_version(shared, name, EQUAL)
    rollback.rollback(shared.client, name, "production", reason="back")
    before = history.list_events(shared.client, name)

    as_shown(block("sh", "pg_dump"), database, shared.files.parent)
    promote_version(shared, name, EQUAL)  # what comes afterwards is not in it
    shutil.move(shared.files.parent / "backup", tmp_path / "backup")

    with postgres() as elsewhere:
        as_shown(block("sh", "pg_restore"), elsewhere, tmp_path)
        as_shown(block("sh", "db upgrade"), elsewhere, tmp_path)
        store = elsewhere.uri("mlflow")
        with guarded_server(store, store, tmp_path, "--workers", "1") as uri:

            def answer(*argv: str) -> str:
                command = [BIN / "registry-tools", *argv, "--tracking-uri", uri]
                done = subprocess.run(command, capture_output=True, text=True)
                assert done.returncode == 0, done.stderr
                return done.stdout

            row = ("--features", "6.0,2.5,4.5,1.5", "--json")
            answered = json.loads(answer("predict", f"{name}@production", *row))
            assert (answered["prediction"], answered["version"]) == ("versicolor", GOOD)
            assert json.loads(answer("history", name, "--json")) == [
                json.loads(json.dumps(event.as_dict())) for event in before
            ]
            assert "REFUSED" not in answer("verify", f"{name}@production")
            there = Place(uri, tmp_path / "artifacts")
            promote_version(there, name, EQUAL)
            assert there.holder(name) == EQUAL


@LONG
def test_each_user_has_exactly_the_documented_permissions(shared: Place, tmp_path: Path) -> None:
    name = shared.model(GOOD, EQUAL)
    promote_version(shared, name, GOOD)
    training = shared.client.create_experiment(name)
    entries = shared.client.get_experiment_by_name(f"{name}-promotions")
    assert entries is not None
    granting = block("python", "grant_user_permission").replace('"iris"', repr(name))
    users = {"trainer": training, "promoter": entries.experiment_id}
    for user, experiment in users.items():
        account_of = f"{user}-{os.getpid()}"
        password = account(account_of)["MLFLOW_TRACKING_PASSWORD"]
        given = f"tracking_uri, password, experiment_id = {(shared.uri, password, experiment)!r}\n"
        script = given + granting.replace('"trainer"', repr(account_of))
        subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    add_user(shared.uri, f"server-{os.getpid()}")

    def run_as(user: str, *argv: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **account(f"{user}-{os.getpid()}")}
        command = [BIN / argv[0], *argv[1:]]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    def refused(user: str, *argv: str) -> None:
        done = run_as(user, "registry-tools", *argv)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
        assert "refused this" in done.stderr

    train = ("python", "-m", "pipeline", "train", "--name", name, "--plots", "false")
    assert run_as("trainer", *train).returncode == 0
    to_production = ("promote", f"{name}/3", "--to", "production", "--margin", "0.9")
    for user in ("trainer", "server"):
        refused(user, *to_production)
    assert run_as("server", *train).returncode == 1
    assert len(shared.client.search_model_versions(f"name = '{name}'")) == 3
    assert shared.holder(name) == GOOD
    done = run_as("promoter", "registry-tools", *to_production)
    assert done.returncode == 0, done.stderr
    back = ("rollback", name, "--reason", "mine")
    refused("server", *back)
    assert run_as("promoter", "registry-tools", *back).returncode == 0
    for user in ("trainer", "promoter", "server"):
        refused(user, "delete", f"{name}/2")
    row = ("--features", "6.0,2.5,4.5,1.5")
    assert run_as("server", "registry-tools", "predict", f"{name}@production", *row).returncode == 0
    newest = history.list_events(shared.client, name, limit=2)
    assert {event.actor for event in newest} == {f"promoter-{os.getpid()}"}
