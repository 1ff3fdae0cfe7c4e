"""Two servers or processes over one database: one move wins, and a killed one leaves nothing."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from registry_tools.gated_store.builder import build_store
from registry_tools.policy.policy_file import POLICY_VARIABLE
from tests.support.gated import Gated, add_users, gated_server, refusal
from tests.support.postgres import Postgres

pytestmark = pytest.mark.slow  # without minutes: then the tests of one database run one after another

ROUNDS = 8
_databases = itertools.count(1)


@pytest.fixture(params=["sqlite", "postgresql+psycopg2", "postgresql+psycopg"], scope="module")
def address(
    request: pytest.FixtureRequest, empty_database: Path, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """A database with MLflow's tables."""
    if request.param == "sqlite":
        path = tmp_path_factory.mktemp("movers") / "mlflow.db"
        path.write_bytes(empty_database.read_bytes())
        return f"sqlite:///{path}"
    database: Postgres = request.getfixturevalue("database")
    uri = database.make(f"gated{next(_databases)}")
    return uri.replace("postgresql+psycopg2", request.param)


@pytest.fixture(scope="module")
def servers(
    address: str, empty_database: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Gated, Gated]]:
    """Two servers over one database; the policy and the artifacts are those of the first."""
    folder = tmp_path_factory.mktemp("servers")
    options = {"store": address, "users": f"sqlite:///{folder}/auth.db"}
    with ExitStack() as stack:
        first = stack.enter_context(gated_server(empty_database, folder, "--workers", "1", **options))
        add_users(first.uri)
        second = stack.enter_context(gated_server(empty_database, folder, "--workers", "1", **options))
        yield first, Gated(second.uri, folder, first.cache)


def test_of_two_moves_at_once_one_wins_and_the_other_is_told(servers: tuple[Gated, Gated]) -> None:
    for _ in range(ROUNDS):
        name = servers[0].model("one", "two")
        for version in (1, 2):
            servers[0].evaluate(name, version)
        barrier = threading.Barrier(2)

        def move(server: Gated, version: int, name: str = name, barrier: threading.Barrier = barrier) -> int:
            barrier.wait()
            answer = server.move("trainer", name, version)
            if answer.status_code != 200:
                assert "is for move 1 of the stage, and the next is 2" in refusal(answer)
            return answer.status_code

        with ThreadPoolExecutor(2) as pool:
            assert sorted(pool.map(move, servers, (1, 2))) == [200, 403]
        assert servers[0].head(name) == 1
        assert servers[0].legacy(name) == list(servers[1].aliases(name).values())


def test_a_rollback_and_a_promotion_set_the_legacy_stage(servers: tuple[Gated, Gated]) -> None:
    name = servers[0].model("one", "two")
    servers[0].promote(name, 1)
    servers[1].promote(name, 2)
    assert servers[0].move("oncall", name, 1).status_code == 200
    assert servers[1].legacy(name) == [1]
    assert servers[1].legacy(name, "Archived") == [2]


def test_a_second_move_waits_for_the_first_and_then_sees_it(
    servers: tuple[Gated, Gated], address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(POLICY_VARIABLE, str(servers[0].policy))
    name = servers[0].model("one", "two")
    for version in (1, 2):
        servers[0].evaluate(name, version)
    store = build_store(f"gated+{address}")
    with ThreadPoolExecutor(1) as pool:
        with store._locked(name):
            waiting = pool.submit(servers[1].move, "trainer", name, 2)
            with pytest.raises(TimeoutError):
                waiting.result(timeout=2)
            store.set_registered_model_alias(name, "production", "1")
            with pytest.raises(MlflowException, match="its verdict is for move 1 of the stage"):
                store.set_registered_model_alias(name, "production", "2")
        assert "is for move 1 of the stage, and the next is 2" in refusal(waiting.result(timeout=60))
    assert servers[1].aliases(name) == {"production": 1}
    store._dispose_engine()


def test_a_refused_request_leaves_nothing_of_its_transaction(
    servers: tuple[Gated, Gated], address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(POLICY_VARIABLE, str(servers[0].policy))
    name = servers[0].model("one")
    servers[0].evaluate(name, 1)
    store = build_store(f"gated+{address}")

    def fail() -> None:
        with store._locked(name):
            store.set_registered_model_alias(name, "production", "1")
            raise OSError("the disk is full")

    with pytest.raises(MlflowException, match="the disk is full"):
        fail()
    assert servers[0].aliases(name) == {}
    assert servers[0].head(name) == 0
    assert "held.production" not in servers[0].get(name, 1)["tags"]
    store._dispose_engine()


def test_a_process_killed_in_the_middle_of_a_move_leaves_nothing_half_done(
    servers: tuple[Gated, Gated], address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(POLICY_VARIABLE, str(servers[0].policy))
    name = servers[0].model("one", "two")
    servers[0].promote(name, 1)
    servers[0].evaluate(name, 2)
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "tests.support.gated_moves", address, name, "2"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        killed = 0
        for _ in process.stdout:
            killed += 1
            assert servers[1].aliases(name) == {"production": 1}
            assert servers[1].legacy(name) == [1]
            assert servers[1].head(name) == 1
            assert "held.production" not in servers[1].get(name, 2)["tags"]
            process.stdin.write("\n")
    assert process.returncode == 0
    assert killed > 8
    assert servers[1].aliases(name) == {"production": 2}
    assert servers[1].legacy(name) == [2]
    assert servers[1].head(name) == 2
