"""Killed processes, and many at once: the stage loads, and the history can be repaired."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
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
from registry_tools.promotion import event_writer, history, lock, promote, recovery, rollback
from registry_tools.refs import ModelRef
from tests.support.registries import EQUAL, GOOD, Place

pytestmark = pytest.mark.slow
SPAWN = multiprocessing.get_context("spawn")

NOT_JUDGED = Verdict((GateResult("none", True, "not judged here"),))


@dataclass(frozen=True)
class Step:
    """A function that an event calls, before or after which its process is killed."""

    place: ModuleType | type
    function: Callable[..., Any]
    when: str

    def __str__(self) -> str:
        return f"{self.when}_{self.function.__name__}"


# Where the stage is afterwards: 1 as before, 2 as after.
STEPS = [
    (Step(event_writer, event_writer.begin_event, "before"), GOOD),
    (Step(event_writer, event_writer.begin_event, "after"), GOOD),
    (Step(promote, evaluate.evaluate, "after"), GOOD),
    (Step(event_writer, event_writer.record_verdict, "after"), GOOD),
    (Step(lock, lock._try_append, "after"), GOOD),
    (Step(lock, lock._append_to_chain, "after"), GOOD),
    (Step(stages, stages.move_alias, "before"), GOOD),
    (Step(stages, stages.move_alias, "after"), EQUAL),
    (Step(stages, stages.mirror_legacy_stage, "after"), EQUAL),
    (Step(MlflowClient, MlflowClient.set_terminated, "before"), EQUAL),
]
by_step = pytest.mark.parametrize(("step", "held"), STEPS, ids=str)


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


def run_slowly(argv: list[str]) -> None:
    """Run a command whose gates take longer than an event without a heartbeat stays open."""

    def evaluate_slowly(*arguments: Any) -> Verdict:
        verdict = evaluate.evaluate(*arguments)
        time.sleep(15)
        return verdict

    pytest.MonkeyPatch().setattr(promote, evaluate.evaluate.__name__, evaluate_slowly)
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
            outcomes.append("done")
        except PromotionError as error:
            outcomes.append("already" if "already" in str(error) else type(error).__name__)
    results.put(outcomes)


def kill_at(step: Step, *argv: str) -> None:
    """Run a command in a new process that is killed at a step."""
    number = [each for each, _ in STEPS].index(step)
    process = SPAWN.Process(target=run_and_kill, args=(number, list(argv)))
    process.start()
    process.join(timeout=120)
    assert process.exitcode == -signal.SIGKILL


def inconsistencies(place: Place, name: str) -> list[str]:
    held = registered_models.stages_of(registered_models.get_registered_model(place.client, name))
    return recovery.inconsistencies(place.client, name, held)


def move(place: Place, name: str, version: int) -> None:
    ref = ModelRef(name, version=version)
    promote.promote(place.client, ref, "production", GateOptions(margin=0.9), reason="go on")


@by_step
def test_after_a_kill_the_next_promotion_goes_on(
    place: Place, short_wait: None, step: Step, held: int
) -> None:
    name = place.model(GOOD, EQUAL, GOOD)
    move(place, name, 1)
    kill_at(step, "promote", f"{name}/2", "--to", "production")
    assert load_model(f"{name}@production").info.version == held
    move(place, name, 3)
    assert place.holder(name) == 3
    recovery.repair(place.client, name)
    assert inconsistencies(place, name) == []
    assert not history.open_events(place.client, name)
    # The event of the killed process is in the history with its outcome.
    back = rollback.rollback(place.client, name, "production", reason="back")
    assert back.version == held


@by_step
def test_after_a_kill_repair_closes_the_event(place: Place, short_wait: None, step: Step, held: int) -> None:
    name = place.model(GOOD, EQUAL)
    move(place, name, 1)
    kill_at(step, "promote", f"{name}/2", "--to", "production")
    opened = step != STEPS[0][0]
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
    ("step", "held"),
    [(Step(lock, lock._append_to_chain, "after"), EQUAL), (Step(stages, stages.move_alias, "after"), GOOD)],
    ids=str,
)
def test_after_a_kill_in_a_rollback_repair_closes_the_event(
    place: Place, short_wait: None, step: Step, held: int
) -> None:
    name = place.model(GOOD, EQUAL)
    move(place, name, 1)
    move(place, name, 2)
    kill_at(step, "rollback", name, "--reason", "back")
    recovery.repair(place.client, name)
    assert place.holder(name) == held
    assert inconsistencies(place, name) == []
    before = list(history.holders_before(place.client, name, "production", held))
    assert [event.version for event in before] == ([GOOD] if held == EQUAL else [])


def test_an_event_in_progress_is_not_taken_for_expired(place: Place) -> None:
    name = place.model(GOOD, EQUAL)
    argv = ["promote", f"{name}/1", "--to", "production"]
    process = SPAWN.Process(target=run_slowly, args=(argv,))
    process.start()
    try:
        while not history.open_events(place.client, name):
            assert process.is_alive()
        assert recovery.repair(place.client, name) == []
        assert inconsistencies(place, name) == []
        process.join(timeout=60)
        assert process.exitcode == 0
    finally:
        process.kill()
    assert place.holder(name) == GOOD


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
            process.join(timeout=60)
            assert process.exitcode == 0
    finally:
        for process in processes:
            process.kill()
    assert sum(outcomes.values()) == 40
    assert set(outcomes) <= {"done", "already", "StageMoved"}
    entries = history.list_events(place.client, name)
    recorded = Counter(event.outcome for event in entries)
    assert recorded == Counter(
        {k: v for k, v in {"done": outcomes["done"], "superseded": outcomes["StageMoved"]}.items() if v}
    )
    assert outcomes["done"] >= 5
    done = sorted(
        (event for event in entries if event.outcome == "done"), key=lambda event: event.sequence or 0
    )
    assert [event.previous_version for event in done] == [None, *[event.version for event in done[:-1]]]
    assert place.holder(name) == done[-1].version
    assert recovery.verify(place.client, ModelRef(name, stage="production"), TrustPolicy()).passed
