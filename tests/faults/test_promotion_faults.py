"""Killed processes, and many at once: the stage loads, and the record can be mended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from registry_tools import load_model
from registry_tools.evaluation.evaluate import GateOptions
from registry_tools.evaluation.gates import GateResult, Verdict
from registry_tools.mlflow_store import registered_models
from registry_tools.models.formats import TrustPolicy
from registry_tools.promotion import history, promote, recovery, rollback
from registry_tools.refs import ModelRef
from tests.support.places import EQUAL, GOOD, Place

pytestmark = pytest.mark.slow

# The gates are tested elsewhere; here they would only take time. Each act passes.
_NOT_JUDGED = """
from registry_tools import promotion
from registry_tools.gates import GateResult, Verdict

def passing(*_):
    return Verdict((GateResult("none", True, "not judged here"),))

promotion.judge = promotion.judge_return = passing
"""

# Kills itself before or after a step of the act.
_KILLED = f"""{_NOT_JUDGED}
import os, signal, sys
from mlflow import MlflowClient
from registry_tools import history, judging, promotion, registry, turns
from registry_tools.cli import main

module, name, when, *argv = sys.argv[1:]
place = MlflowClient if module == "MlflowClient" else globals()[module]
step = getattr(place, name)

def killing(*arguments, **options):
    if when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    step(*arguments, **options)
    os.kill(os.getpid(), signal.SIGKILL)

setattr(place, name, killing)
sys.exit(main(argv))
"""

# Where the stage is afterwards: 1 as before, 2 as after.
STEPS = [
    ("history", "open_act", "before", GOOD),
    ("history", "open_act", "after", GOOD),
    ("promotion", "judge", "after", GOOD),
    ("history", "record_verdict", "after", GOOD),
    ("turns", "_claimed", "after", GOOD),
    ("turns", "_claim", "after", GOOD),
    ("registry", "move_alias", "before", GOOD),
    ("registry", "move_alias", "after", EQUAL),
    ("registry", "mirror_legacy_stage", "after", EQUAL),
    ("MlflowClient", "set_terminated", "before", EQUAL),
]


@pytest.fixture(autouse=True)
def _not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = Verdict((GateResult("none", True, "not judged here"),))
    for evaluate in ("judge", "judge_return"):
        monkeypatch.setattr(promote, evaluate, lambda *_: verdict)


def kill_at(module: str, name: str, when: str, *argv: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, module, name, when, *argv], capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


def inconsistencies(place: Place, name: str) -> list[str]:
    stages = registered_models.stages_of(registered_models.get_registered_model(place.client, name))
    return recovery.inconsistencies(place.client, name, stages)


def move(place: Place, name: str, version: int) -> None:
    ref = ModelRef(name, version=version)
    promote.promote(place.client, ref, "production", GateOptions(margin=0.9), reason="go on")


@pytest.mark.parametrize(("module", "step", "when", "held"), STEPS)
def test_after_a_kill_the_next_promotion_goes_on(
    place: Place, short_wait: None, module: str, step: str, when: str, held: int
) -> None:
    name = place.model(GOOD, EQUAL, GOOD)
    move(place, name, 1)
    kill_at(module, step, when, "promote", f"{name}/2", "--to", "production")
    assert load_model(f"{name}@production").info.version == held
    move(place, name, 3)
    assert place.holder(name) == 3
    recovery.repair(place.client, name)
    assert inconsistencies(place, name) == []
    assert not history.open_events(place.client, name)
    # What was under way when it was killed is in the record as what it came to.
    back = rollback.rollback(place.client, name, "production", reason="back")
    assert back.version == held


@pytest.mark.parametrize(("module", "step", "when", "held"), STEPS)
def test_after_a_kill_repair_mends_the_record(
    place: Place, short_wait: None, module: str, step: str, when: str, held: int
) -> None:
    name = place.model(GOOD, EQUAL)
    move(place, name, 1)
    kill_at(module, step, when, "promote", f"{name}/2", "--to", "production")
    opened = (step, when) != ("open_act", "before")
    assert bool(inconsistencies(place, name)) == opened
    done = recovery.repair(place.client, name)
    assert bool(done) == opened
    assert inconsistencies(place, name) == []
    assert place.holder(name) == held
    newest = history.list_events(place.client, name, limit=1)[0]
    assert newest.outcome == ("done" if held == EQUAL or not opened else "unfinished")
    assert recovery.repair(place.client, name) == []
    assert recovery.verify(place.client, ModelRef(name, stage="production"), TrustPolicy()).passed


@pytest.mark.parametrize(
    ("module", "step", "when", "held"),
    [("turns", "_claim", "after", EQUAL), ("registry", "move_alias", "after", GOOD)],
)
def test_after_a_kill_in_a_rollback_repair_mends_the_record(
    place: Place, short_wait: None, module: str, step: str, when: str, held: int
) -> None:
    name = place.model(GOOD, EQUAL)
    move(place, name, 1)
    move(place, name, 2)
    kill_at(module, step, when, "rollback", name, "--reason", "back")
    recovery.repair(place.client, name)
    assert place.holder(name) == held
    assert inconsistencies(place, name) == []
    before = list(history.holders_before(place.client, name, "production", held))
    assert [event.version for event in before] == ([GOOD] if held == EQUAL else [])


def test_an_act_under_way_is_not_taken_for_killed(place: Place, tmp_path: Path) -> None:
    name = place.model(GOOD, EQUAL)
    slow = (
        "import sys, time\n"
        "from registry_tools import promotion, judging\n"
        "from registry_tools.cli import main\n"
        "def judge(*arguments):\n"
        "    verdict = judging.judge(*arguments)\n"
        "    time.sleep(15)\n"
        "    return verdict\n"
        "promotion.judge = judge\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", slow, "promote", f"{name}/1", "--to", "production"],
        stdout=subprocess.DEVNULL,
    )
    try:
        while not history.open_events(place.client, name):
            assert process.poll() is None
        assert recovery.repair(place.client, name) == []
        assert inconsistencies(place, name) == []
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
    assert place.holder(name) == GOOD


_FIVE_TIMES = f"""{_NOT_JUDGED}
import json, sys
from registry_tools import connection, promotion
from registry_tools.errors import PromotionError
from registry_tools.judging import GateOptions
from registry_tools.refs import ModelRef

name, version = sys.argv[1], int(sys.argv[2])
came = []
client = connection.connect()
for _ in range(5):
    try:
        options = GateOptions(margin=0.9)
        promotion.promote(client, ModelRef(name, version=version), "production", options)
        came.append("done")
    except PromotionError as error:
        came.append("already" if "already" in str(error) else type(error).__name__)
print(json.dumps(came))
"""


def test_eight_processes_promote_at_once(place: Place) -> None:
    name = place.model(*[GOOD, EQUAL] * 4)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _FIVE_TIMES, name, str(version)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "MLFLOW_HTTP_REQUEST_TIMEOUT": "60"},
        )
        for version in range(1, 9)
    ]
    came: Counter[str] = Counter()
    try:
        for process in processes:
            out, err = process.communicate(timeout=600)
            assert process.returncode == 0, err
            came.update(json.loads(out.splitlines()[-1]))  # after what MLflow prints
    finally:
        for process in processes:
            process.kill()
    assert sum(came.values()) == 40
    assert set(came) <= {"done", "already", "StageMoved"}
    entries = history.list_events(place.client, name)
    recorded = Counter(event.outcome for event in entries)
    assert recorded == Counter(
        {k: v for k, v in {"done": came["done"], "superseded": came["StageMoved"]}.items() if v}
    )
    assert came["done"] >= 5
    done = sorted(
        (event for event in entries if event.outcome == "done"),
        key=lambda event: event.sequence or 0,
    )
    assert [event.previous_version for event in done] == [
        None,
        *[event.version for event in done[:-1]],
    ]
    assert place.holder(name) == done[-1].version
    assert recovery.verify(place.client, ModelRef(name, stage="production"), TrustPolicy()).passed
