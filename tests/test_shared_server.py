"""A server that a team shares: several processes over PostgreSQL, several clients at once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from places import Place
from postgres import has_postgres
from servers import eventually

from registry_tools import history, load_model, registry, upkeep
from registry_tools.formats import TrustPolicy
from registry_tools.refs import ModelRef

pytestmark = pytest.mark.slow

_CLIENTS = 8
# A training that waits for the others before it registers, and then goes for production.
_TRAINED_TOGETHER = """
import sys, time
from pathlib import Path
from pipeline import tracking
from pipeline.params import TrainParams
from pipeline.train import train
from registry_tools.cli import main

folder, name, seed = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
register = tracking.register

def together(*arguments, **options):
    Path(folder, f"ready-{seed}").touch()
    deadline = time.monotonic() + 300
    while not Path(folder, "go").exists():
        assert time.monotonic() < deadline, "the others did not come"
        time.sleep(0.01)
    return register(*arguments, **options)

tracking.register = together
version = train(TrainParams(name=name, random_state=int(seed), plots=False)).version
reason = ["--reason", f"with {seed}"]
sys.exit(main(["promote", f"{name}/{version}", "--to", "production", *reason]))
"""


@pytest.fixture
def shared(guarded_place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The server with several processes over PostgreSQL."""
    if not has_postgres():
        pytest.skip("pgserver, a wheel with PostgreSQL, is not there for this Python or machine")
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "MLFLOW_TRACKING_URI": guarded_place.uri,
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",  # eight on two cores
        **guarded_place.environment,
    }.items():
        monkeypatch.setenv(name, value)
    return guarded_place


@pytest.mark.timeout(400)
def test_eight_trainings_register_and_go_for_production_at_once(
    shared: Place, tmp_path: Path
) -> None:
    name = f"together-{os.getpid()}"
    processes = []
    for seed in range(_CLIENTS):
        command = [sys.executable, "-c", _TRAINED_TOGETHER, str(tmp_path), name, str(seed)]
        with (tmp_path / f"{seed}.log").open("wb") as log:
            processes.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT))
        if seed % 2:  # two at a time import what a training needs; then they wait for each other
            eventually((tmp_path / f"ready-{seed}").exists, seconds=100)
    try:
        eventually(lambda: len(list(tmp_path.glob("ready-*"))) == _CLIENTS, seconds=100)
        (tmp_path / "go").touch()
        codes = [process.wait(timeout=200) for process in processes]
    finally:
        for process in processes:
            process.kill()
    said = "".join((tmp_path / f"{seed}.log").read_text() for seed in range(_CLIENTS))
    assert "Traceback" not in said, said
    assert set(codes) <= {0, 1, 3}, said

    versions = registry.list_versions(shared.client, name)
    assert [v.version for v in versions] == list(range(_CLIENTS, 0, -1)), said
    assert len({v.run_id for v in versions}) == _CLIENTS
    for version in versions:
        run = shared.client.get_run(str(version.run_id))
        assert (run.info.status, version.metrics) == ("FINISHED", run.data.metrics)
        assert version.digest is not None

    acts = history.acts(shared.client, name)
    assert {act.version for act in acts} == set(range(1, _CLIENTS + 1)), said
    assert not any(act.is_open for act in acts)
    came = Counter(act.outcome for act in acts)
    assert came == Counter({"done": codes.count(0), "refused": codes.count(3)}) + Counter(
        {"superseded": codes.count(1)}
    ), said
    done = sorted((act for act in acts if act.outcome == "done"), key=lambda act: act.turn or 0)
    assert [act.previous_version for act in done] == [None, *[act.version for act in done[:-1]]]
    assert shared.holder(name) == done[-1].version
    assert shared.holder(name, "staging") is None or shared.holder(name, "staging")
    assert upkeep.repair(shared.client, name) == []
    assert upkeep.verify(shared.client, ModelRef(name, stage="production"), TrustPolicy()).passed
    assert load_model(f"{name}@production").info.version == done[-1].version
