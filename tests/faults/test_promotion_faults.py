"""Killed processes, and many at once: the stage loads, and the history can be repaired."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from random import Random
from types import ModuleType
from typing import Any

import pytest
from mlflow import MlflowClient

from registry_tools import load_model
from registry_tools.cli.main import main
from registry_tools.errors import PromotionError
from registry_tools.evaluation import evaluate
from registry_tools.evaluation.gate_options import GateOptions
from registry_tools.evaluation.verdict import GateResult, Verdict
from registry_tools.mlflow_store import registered_models, stages
from registry_tools.mlflow_store.client import connect
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.promotion import history, promote, recovery, rollback
from registry_tools.promotion.event_log import EventLog
from registry_tools.refs import ModelRef
from tests.support.constants import IS_LONG, LONG
from tests.support.registries import EQUAL, GOOD, Place, on_server, on_sqlite

pytestmark = pytest.mark.slow
SPAWN = multiprocessing.get_context("spawn")
SECONDS = 120 if IS_LONG else 24

NOT_JUDGED = Verdict((GateResult("none", True, "not judged here"),))


@dataclass(frozen=True)
class Step:
    """A function that an event calls, before or after which its process is killed."""

    place: ModuleType | type
    function: Callable[..., Any]
    when: str

    def __str__(self) -> str:
        return f"{self.when}_{self.function.__name__}"


# Which version the stage holds afterwards, and which one after the next command.
STEPS = [
    (Step(promote, evaluate.evaluate, "after"), GOOD, GOOD),
    (Step(EventLog, EventLog.record, "after"), GOOD, GOOD),
    (Step(EventLog, EventLog.claim, "after"), GOOD, EQUAL),
    (Step(EventLog, EventLog.mark_applying, "after"), GOOD, EQUAL),
    (Step(stages, stages.move_alias, "after"), EQUAL, EQUAL),
    (Step(EventLog, EventLog.close, "after"), EQUAL, EQUAL),
    (Step(EventLog, EventLog.set_head, "after"), EQUAL, EQUAL),
    (Step(stages, stages.mirror_legacy_stages, "before"), EQUAL, EQUAL),
    (Step(MlflowClient, MlflowClient.set_terminated, "before"), EQUAL, EQUAL),
]
by_step = pytest.mark.parametrize(("step", "held", "entry"), STEPS, ids=str)


def pass_all_gates(patch: pytest.MonkeyPatch) -> None:
    """Let each version pass: the gates are tested elsewhere, and take time."""
    patch.setattr(promote, evaluate.evaluate.__name__, lambda *_: NOT_JUDGED)
    patch.setattr(rollback, evaluate.evaluate_rollback.__name__, lambda *_: NOT_JUDGED)


@pytest.fixture(autouse=True)
def _not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    pass_all_gates(monkeypatch)


def run_and_kill(number: int, argv: list[str]) -> None:
    """Run a command in this process, and kill it before or after a step."""
    patch = pytest.MonkeyPatch()
    pass_all_gates(patch)
    step = STEPS[number][0]
    whole = getattr(step.place, step.function.__name__)

    def killing(*arguments: Any, **options: Any) -> None:
        if step.when == "after":
            whole(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    patch.setattr(step.place, step.function.__name__, killing)
    sys.exit(main(argv))


def promote_five_times(name: str, version: int, results: Any) -> None:
    """Promote a version five times, and report how each promotion ended."""
    pass_all_gates(pytest.MonkeyPatch())
    client = connect()
    outcomes = []
    for _ in range(5):
        try:
            ref = ModelRef(name, version=version)
            promote.promote(client, ref, "production", GateOptions(margin=0.9))
            outcomes.append("applied")
        except PromotionError as error:
            outcomes.append("already" if "already" in str(error) else type(error).__name__)
    results.put(outcomes)


def kill_at(step: Step, *argv: str) -> None:
    """Run a command in a new process that is killed at a step."""
    number = [each for each, _, _ in STEPS].index(step)
    process = SPAWN.Process(target=run_and_kill, args=(number, list(argv)))
    process.start()
    process.join(timeout=120)
    assert process.exitcode == -signal.SIGKILL


def inconsistencies(place: Place, name: str) -> list[str]:
    held = registered_models.stages_of(registered_models.get_registered_model(place.client, name))
    return history.inconsistencies(place.client, name, held)


def move(place: Place, name: str, version: int) -> None:
    ref = ModelRef(name, version=version)
    promote.promote(place.client, ref, "production", GateOptions(margin=0.9), reason="go on")


@LONG
@on_sqlite
@by_step
def test_after_a_kill_the_next_promotion_goes_on(place: Place, step: Step, held: int, entry: int) -> None:
    name = place.model(GOOD, EQUAL, GOOD)
    move(place, name, 1)
    kill_at(step, "promote", f"{name}/2", "--to", "production")
    assert load_model(f"{name}@production").info.version == held
    move(place, name, 3)
    assert place.holder(name) == 3
    assert inconsistencies(place, name) == []
    # The event of the killed process is in the history, if it was claimed.
    back = rollback.rollback(place.client, name, "production", reason="back")
    assert back.version == entry


@on_server
@by_step
def test_after_a_kill_repair_completes_the_event(place: Place, step: Step, held: int, entry: int) -> None:
    name = place.model(GOOD, EQUAL)
    move(place, name, 1)
    kill_at(step, "promote", f"{name}/2", "--to", "production")
    assert stages.stage_holder(place.client, name, "production") == held
    recovery.repair(place.client, name)
    assert inconsistencies(place, name) == []
    assert place.holder(name) == entry
    entries = history.list_events(place.client, name)
    assert not any(event.is_running for event in entries)
    outcomes = [event.outcome for event in entries if event.version == 2]
    assert outcomes == (["applied"] if entry == EQUAL else ["superseded"] * len(outcomes))
    assert recovery.repair(place.client, name) == []
    assert recovery.verify(place.client, ModelRef(name, stage="production"), TrustPolicy()).passed


@LONG
@on_server
@pytest.mark.parametrize(
    "step", [Step(EventLog, EventLog.claim, "after"), Step(stages, stages.move_alias, "after")], ids=str
)
def test_after_a_kill_in_a_rollback_repair_completes_it(place: Place, step: Step) -> None:
    name = place.model(GOOD, EQUAL)
    move(place, name, 1)
    move(place, name, 2)
    kill_at(step, "rollback", name, "--reason", "back")
    recovery.repair(place.client, name)
    assert place.holder(name) == GOOD
    assert inconsistencies(place, name) == []
    with pytest.raises(PromotionError, match="version 2, which held it before, was rolled back already"):
        rollback.rollback(place.client, name, "production", reason="back")


def test_eight_processes_promote_at_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    name = place.model(*[GOOD, EQUAL] * 4)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    results = SPAWN.Queue()
    processes = [
        SPAWN.Process(target=promote_five_times, args=(name, version, results)) for version in range(1, 9)
    ]
    outcomes: Counter[str] = Counter()
    try:
        for process in processes:
            process.start()
        for _ in processes:
            outcomes.update(results.get(timeout=600))
        for process in processes:
            process.join(timeout=120)
            assert process.exitcode == 0
    finally:
        for process in processes:
            process.kill()
    assert sum(outcomes.values()) == 40
    assert set(outcomes) <= {"applied", "already", "StageMoved"}
    check_history(place, name, applied=outcomes["applied"], superseded=outcomes["StageMoved"])
    assert outcomes["applied"] >= 5


def check_history(place: Place, name: str, **counts: int) -> None:
    """Check that numbers have no gaps, that each event begins where the one before ended, and counts."""
    entries = history.list_events(place.client, name)
    outcomes = Counter(event.outcome for event in entries)
    assert not set(outcomes) - {"applied", "superseded", "failed"}
    assert all(outcomes[outcome] == count for outcome, count in counts.items())
    applied = sorted(
        (event for event in entries if event.outcome == "applied"), key=lambda event: event.sequence
    )
    assert [event.sequence for event in applied] == list(range(1, len(applied) + 1))
    assert [event.previous_version for event in applied] == [None, *[event.version for event in applied[:-1]]]
    assert place.holder(name) == applied[-1].version
    assert inconsistencies(place, name) == []
    assert recovery.verify(place.client, ModelRef(name, stage="production"), TrustPolicy()).passed


def move_for_ever(name: str, seed: int) -> None:
    """Promote and roll back at random until the process is killed."""
    pass_all_gates(pytest.MonkeyPatch())
    client, random = connect(), Random(seed)
    while True:
        try:
            if random.random() < 0.4:
                rollback.rollback(client, name, "production", reason="back")
            else:
                ref = ModelRef(name, version=random.randint(1, 4))
                promote.promote(client, ref, "production", GateOptions())
        except PromotionError:
            continue  # the stage moved, holds that version already, or held no other one


@pytest.mark.parametrize("place", [pytest.param("sqlite_place", marks=LONG), "guarded_place"], indirect=True)
def test_four_processes_move_a_stage_while_one_of_them_is_killed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = place.model(GOOD, EQUAL, GOOD, EQUAL)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    random, seeds = Random(15), itertools.count()
    move(place, name, 1)

    def start() -> BaseProcess:
        process = SPAWN.Process(target=move_for_ever, args=(name, next(seeds)), daemon=True)
        process.start()
        return process

    processes = [start() for _ in range(4)]
    end = time.monotonic() + SECONDS
    kills = 0
    try:
        while time.monotonic() < end:
            time.sleep(random.uniform(4, 8))  # a process takes two seconds to start
            killed = random.randrange(4)
            assert processes[killed].is_alive()
            processes[killed].kill()
            processes[killed].join()
            kills += 1
            processes[killed] = start()
    finally:
        for process in processes:
            process.kill()
            process.join()
    recovery.repair(place.client, name)
    check_history(place, name)
    entries = history.list_events(place.client, name)
    assert not any(event.is_running for event in entries)
    assert len(entries) > SECONDS / 6
    assert kills > SECONDS / 12
    assert recovery.repair(place.client, name) == []
