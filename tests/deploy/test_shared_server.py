"""A server for a team: several worker processes on PostgreSQL, and several clients at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from mlflow import MlflowClient

from registry_tools import load_model
from registry_tools.errors import RegistryUnavailable
from registry_tools.evaluation.evaluate import evaluate
from registry_tools.evaluation.gate_options import GateOptions
from registry_tools.mlflow_store import registered_models, registry, stages
from registry_tools.mlflow_store.client import upsert
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.promotion import history, promote, recovery, rollback
from registry_tools.promotion.event import OPEN
from registry_tools.promotion.event_log import EventLog
from registry_tools.promotion.promote import Promotion
from registry_tools.refs import ModelRef
from tests.support.constants import LONG
from tests.support.postgres import Postgres, has_postgres
from tests.support.registries import EQUAL, GOOD, Place
from tests.support.servers import BIN, eventually, free_port, wait_until_up

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not has_postgres(), reason="pgserver has no wheel for this Python"),
]

_CLIENTS = 8
# Eight trainings in separate processes, which wait for each other before they register and promote. The
# processes are forked, because eight imports would take most of the time on two cores.
_TRAINED_TOGETHER = """
import os, sys, time
from pathlib import Path
from pipeline.params.definitions import TrainParams
import pipeline.training.train as training
from registry_tools.cli.main import main
from registry_tools.evaluation import evaluate, isolated_predict

folder, name, clients = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
register = training.register_version

def together(*arguments, **options):
    (folder / f"ready-{os.getpid()}").touch()
    deadline = time.monotonic() + 200
    while len(list(folder.glob("ready-*"))) < clients:
        assert time.monotonic() < deadline, "the others did not come"
        time.sleep(0.01)
    return register(*arguments, **options)

def one(seed):
    training.register_version = together
    version = training.train(TrainParams(name=name, random_state=seed, plots=False)).version
    reason = ["--reason", f"with {seed}"]
    return main(["promote", f"{name}/{version}", "--to", "production", *reason])

children = []
for seed in range(clients):
    child = os.fork()
    if child == 0:
        code = 9
        try:
            code = one(seed)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            (folder / f"code-{seed}").write_text(str(code))
            os._exit(0)
    children.append(child)
for child in children:
    os.waitpid(child, 0)
"""


@pytest.fixture
def shared(guarded_place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The server with several processes on PostgreSQL, used as its owner."""
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "MLFLOW_TRACKING_URI": guarded_place.uri,
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",  # eight clients on two cores
        **guarded_place.environment,
    }.items():
        monkeypatch.setenv(name, value)
    return guarded_place


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the same limits for retries as the command line does by default."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "4")


@pytest.fixture
def without_database(database: Postgres) -> Iterator[Callable[[], None]]:
    """Stop the database of the running server, and start it again after the test."""
    stopped = threading.Event()

    def stop() -> None:
        database.stop()
        stopped.set()

    yield stop
    if stopped.is_set() and not (database.folder / "data" / "postmaster.pid").exists():
        database.start()


def promote_version(place: Place, name: str, version: int) -> Promotion:
    ref = ModelRef(name, version=version)
    return promote.promote(place.client, ref, "production", GateOptions(margin=0.9))


def legacy(place: Place, name: str, stage: str) -> set[int]:
    found = place.client.search_model_versions(f"name = '{name}'")
    return {int(v.version) for v in found if v.current_stage == stage}


@LONG
def test_eight_trainings_register_and_promote_at_the_same_time(shared: Place, tmp_path: Path) -> None:
    name = f"together-{os.getpid()}"
    done = subprocess.run(
        [sys.executable, "-c", _TRAINED_TOGETHER, str(tmp_path), name, str(_CLIENTS)],
        capture_output=True,
        text=True,
        timeout=350,
    )
    output = done.stdout + done.stderr
    assert "Traceback" not in output, output
    codes = Counter((tmp_path / f"code-{seed}").read_text() for seed in range(_CLIENTS))

    versions = registry.list_versions(shared.client, name)
    assert [v.version for v in versions] == list(range(_CLIENTS, 0, -1)), output
    runs = [shared.client.get_run(str(v.run_id)) for v in versions]
    assert len({run.info.run_id for run in runs}) == _CLIENTS
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert all(version.metrics["accuracy"] > 0.8 for version in versions)
    staged = stages.stage_holder(shared.client, name, "staging")
    assert staged in range(1, _CLIENTS + 1)
    # The version in staging has the legacy stage Staging, unless it is also in production.
    assert legacy(shared, name, "Staging") <= {staged}

    registered = [event for event in history.list_events(shared.client, name) if event.stage == "staging"]
    assert Counter(event.outcome for event in registered)["applied"] == _CLIENTS
    entries = history.list_events(shared.client, name, stage="production")
    assert {event.version for event in entries} == set(range(1, _CLIENTS + 1)), output
    assert not any(event.outcome == OPEN for event in entries)
    came = Counter(event.outcome for event in entries)
    names = {"applied": "0", "superseded": "1", "refused": "3"}
    assert Counter({names[outcome]: n for outcome, n in came.items()}) == codes, output
    moves = sorted(
        (event for event in entries if event.outcome == "applied"), key=lambda event: event.sequence
    )
    assert [event.previous_version for event in moves] == [None, *[event.version for event in moves[:-1]]]
    assert shared.holder(name) == moves[-1].version
    assert recovery.repair(shared.client, name) == []
    assert recovery.verify(shared.client, ModelRef(name, stage="production"), TrustPolicy()).passed


def test_a_first_write_by_many_clients_at_once_succeeds(shared: Place) -> None:
    """MLflow reads before it inserts, so PostgreSQL refuses one of two inserts; our code retries it."""
    name = shared.model(*[GOOD] * _CLIENTS)
    run = shared.client.get_model_version(name, "1").run_id
    experiment = shared.client.get_run(run).info.experiment_id
    together = threading.Barrier(_CLIENTS, timeout=120)

    def one(number: int) -> None:
        for again in range(3):
            together.wait()
            stages.move_alias(shared.client, name, f"stage-{again}", number)
            together.wait()
            key = f"{name}-{again}"
            upsert(lambda key=key: shared.client.set_experiment_tag(experiment, key, str(number)))

    with ThreadPoolExecutor(_CLIENTS) as pool:
        list(pool.map(one, range(1, _CLIENTS + 1)))
    held = registered_models.stages_of(registered_models.get_registered_model(shared.client, name))
    assert set(held) == {"stage-0", "stage-1", "stage-2"}


def test_the_legacy_stage_follows_with_the_other_postgres_driver(
    shared: Place, database: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    name = shared.model(GOOD, EQUAL, GOOD)
    driver = database.uri("mlflow").replace("+psycopg2", "+psycopg")
    client = MlflowClient(driver)
    for version in (1, 2, 3, 2):
        stages.move_alias(client, name, "production", version)
        stages.mirror_legacy_stages(client, name)
        assert shared.holder(name) == version
    assert legacy(shared, name, "Archived") == {1, 3}
    assert "were not set" not in caplog.text


@LONG
@pytest.mark.parametrize(
    ("step", "held", "repaired"),
    [("evaluate", GOOD, []), ("close", EQUAL, ["promote 2 → production was left open; now applied"])],
)
def test_a_database_failure_during_a_promotion_loses_no_stage(
    shared: Place,
    database: Postgres,
    without_database: Callable[[], None],
    impatient: None,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    held: int,
    repaired: list[str],
) -> None:
    name = shared.model(GOOD, EQUAL)
    promote_version(shared, name, GOOD)
    with monkeypatch.context() as patch:
        if step == "evaluate":  # before the stage is moved

            def evaluate_and_stop(*arguments: Any) -> Any:
                verdict = evaluate(*arguments)
                without_database()
                return verdict

            patch.setattr(promote, evaluate.__name__, evaluate_and_stop)
        else:  # after it is moved, and before that is recorded

            def close(*arguments: Any, **options: Any) -> Any:
                without_database()
                return write_outcome(*arguments, **options)

            write_outcome = EventLog.close
            patch.setattr(EventLog, write_outcome.__name__, close)
        with pytest.raises(RegistryUnavailable, match=r"its database"):
            promote_version(shared, name, EQUAL)
    database.start()
    assert stages.stage_holder(shared.client, name, "production") == held
    assert recovery.repair(shared.client, name) == repaired
    assert shared.holder(name) == held
    verified = recovery.verify(shared.client, ModelRef(name, stage="production"), TrustPolicy())
    assert verified.passed
    if held == GOOD:
        promote_version(shared, name, EQUAL)
    assert rollback.rollback(shared.client, name, "production", reason="back").version == GOOD


@LONG
def test_without_its_database_each_command_prints_one_line_and_serving_continues(
    shared: Place,
    database: Postgres,
    without_database: Callable[[], None],
    start: Callable[..., subprocess.Popen[bytes]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT")
    name = shared.model(GOOD, EQUAL)
    promote_version(shared, name, GOOD)
    before = history.list_events(shared.client, name)
    port = free_port()
    command = (BIN / "registry-tools", "serve", f"{name}@production", "--port", str(port))
    process = start(*command, "--poll", "0.5")
    address = f"http://127.0.0.1:{port}"
    wait_until_up(f"{address}/ready", process)
    row = {"features": [6.0, 2.5, 4.5, 1.5]}

    without_database()
    for argv in (
        ("registry-tools", "show", f"{name}@production"),
        ("registry-tools", "promote", f"{name}/2", "--to", "production"),
        ("registry-tools", "rollback", name, "--reason", "mine"),
        ("python", "-m", "pipeline", "train", "--name", name, "--plots", "false"),
    ):
        done = subprocess.run([BIN / argv[0], *argv[1:]], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (1, ""), done.stderr
        assert done.stderr.count("\n") == 1, done.stderr
        assert "its database" in done.stderr
    assert httpx.post(f"{address}/predict", json=row).headers["X-Model-Version"] == "1"

    database.start()
    assert history.list_events(shared.client, name) == before
    assert [v.version for v in registry.list_versions(shared.client, name)] == [2, 1]
    promote_version(shared, name, EQUAL)
    eventually(lambda: httpx.post(f"{address}/predict", json=row).headers["X-Model-Version"] == "2")
    assert load_model(f"{name}@production").info.version == EQUAL
    (newest, *_) = json.loads(subprocess.check_output([BIN / "registry-tools", "history", name, "--json"]))
    assert (newest["outcome"], newest["version"]) == ("applied", EQUAL)
