"""Clients whose calls of MLflow are interleaved at random, with crashes and delayed requests.

The code and the store are the real ones. Each client is a thread that waits for its turn before
each call; the schedule decides which client goes on, and which of them crashes.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from registry_tools.errors import PromotionError
from registry_tools.evaluation.gate_options import GateOptions
from registry_tools.evaluation.verdict import GateResult, Verdict
from registry_tools.mlflow_store import registered_models, stages
from registry_tools.promotion import history, promote, recovery, rollback
from registry_tools.promotion.event import APPLIED, BEGIN, OPEN, Event
from registry_tools.promotion.event_log import EventLog
from registry_tools.refs import ModelRef
from tests.support.constants import IS_LONG

_names = itertools.count(1)
_SECONDS = 60
_PASSED = Verdict((GateResult("none", True, "not evaluated here"),))
RUN, CRASH_BEFORE, CRASH_AFTER, DELAY = range(4)


class Crash(BaseException):
    """The process of a client ends here."""


class Actor(threading.Thread):
    """A client that does some commands, and waits for its turn before each call of MLflow."""

    def __init__(self, client: MlflowClient, name: str, commands: list[int]) -> None:
        super().__init__(daemon=True)
        self.model = name
        self.client = SteppedClient(client, self)
        self.commands = commands
        self.moved: list[Event] = []
        self.errors: list[BaseException] = []
        self.pending: Callable[[], Any] | None = None
        self.verdict = RUN
        self.arrived = threading.Semaphore(0)
        self.turn = threading.Semaphore(0)

    def run(self) -> None:
        try:
            for command in self.commands:
                self._do(command)
        except Crash:
            pass
        except BaseException as error:  # noqa: BLE001 - the test raises it
            self.errors.append(error)
        self.pending = None
        self.arrived.release()

    def _do(self, command: int) -> None:
        client: Any = self.client
        try:
            if command == 0:
                result = rollback.rollback(client, self.model, "production", reason="back")
            else:
                ref = ModelRef(self.model, version=command)
                result = promote.promote(client, ref, "production", GateOptions())
        except PromotionError:
            return  # the stage moved, holds this version already, or held no other one
        assert result.event is not None
        self.moved.append(result.event)

    def call(self, function: Callable[[], Any]) -> Any:
        """Wait for the turn, and call a function of MLflow unless the schedule says otherwise."""
        self.pending = function
        self.arrived.release()
        assert self.turn.acquire(timeout=_SECONDS)
        if self.verdict in {CRASH_BEFORE, DELAY}:
            raise Crash
        result = function()
        if self.verdict == CRASH_AFTER:
            raise Crash
        return result

    def go_on(self, verdict: int) -> None:
        """Let the client do its next call, and wait until it is at the one after."""
        self.verdict = verdict
        self.turn.release()
        assert self.arrived.acquire(timeout=_SECONDS)


class SteppedClient:
    """An MlflowClient whose public methods wait for the turn of an actor."""

    def __init__(self, client: MlflowClient, actor: Actor) -> None:
        self._client, self._actor = client, actor

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._client, name)
        if name.startswith("_") or not callable(value):
            return value
        return lambda *arguments, **options: self._actor.call(partial(value, *arguments, **options))


@pytest.fixture(scope="module")
def client(empty_database: Any, tmp_path_factory: pytest.TempPathFactory) -> MlflowClient:
    database = tmp_path_factory.mktemp("store") / "mlflow.db"
    database.write_bytes(empty_database.read_bytes())
    return MlflowClient(f"sqlite:///{database}")


def make_model(client: MlflowClient) -> str:
    name = f"model-{next(_names)}"
    client.create_registered_model(name)
    for _ in range(3):
        client.create_model_version(name, source="file:///none")
    return name


def run_schedule(actors: list[Actor], choices: list[int], crashes: dict[int, int]) -> None:
    """Run clients to their ends; at each step a choice says which of them goes on."""
    delayed: list[Callable[[], Any]] = []
    for actor in actors:
        actor.start()
        assert actor.arrived.acquire(timeout=_SECONDS)
    for step in itertools.count():
        waiting = [actor for actor in actors if actor.pending is not None]
        if not waiting and not delayed:
            return
        choice = choices[step % len(choices)] % (len(waiting) + len(delayed))
        if choice >= len(waiting):
            with contextlib.suppress(MlflowException):  # its client is gone and hears of no error
                delayed.pop(choice - len(waiting))()
            continue
        actor, verdict = waiting[choice], crashes.get(step, RUN)
        if verdict == DELAY:
            assert actor.pending is not None
            delayed.append(actor.pending)
        actor.go_on(verdict)


def check(client: MlflowClient, name: str, actors: list[Actor]) -> None:
    """Check the invariants of the protocol after a repair."""
    recovery.repair(client, name)
    log = EventLog.find(client, name)
    chain: list[Event] = []
    event = log.head("production")
    while event.action != BEGIN:
        chain.insert(0, event)
        event = log.previous(event)
    assert [event.sequence for event in chain] == list(range(1, len(chain) + 1))
    held = stages.stage_holder(client, name, "production")
    assert held == log.entry(log.head("production")).version
    outcomes = {event.run_id: event.outcome for event in chain}
    assert OPEN not in outcomes.values()
    for actor in actors:
        assert all(outcomes[event.run_id] == APPLIED for event in actor.moved)
    for event in history.list_events(client, name):
        assert not event.is_running
        assert event.outcome != APPLIED or event.run_id in outcomes
    assert not [event for event in chain if event.action == "external"]
    model = registered_models.get_registered_model(client, name)
    assert history.inconsistencies(client, name, registered_models.stages_of(model)) == []
    assert recovery.repair(client, name) == []


_COMMANDS = st.lists(st.integers(0, 3), min_size=1, max_size=2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*stages:FutureWarning")
@settings(
    max_examples=300 if IS_LONG else 40, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(
    commands=st.lists(_COMMANDS, min_size=2, max_size=3),
    choices=st.lists(st.integers(0, 11), min_size=20, max_size=200),
    crashes=st.dictionaries(st.integers(0, 150), st.integers(CRASH_BEFORE, DELAY), max_size=2),
)
def test_random_interleavings_keep_the_invariants_on_a_real_store(
    client: MlflowClient,
    monkeypatch: pytest.MonkeyPatch,
    commands: list[list[int]],
    choices: list[int],
    crashes: dict[int, int],
) -> None:
    monkeypatch.setattr(promote, "evaluate", lambda *_: _PASSED)
    monkeypatch.setattr(rollback, "evaluate_rollback", lambda *_: _PASSED)
    name = make_model(client)
    actors = [Actor(client, name, each) for each in commands]
    run_schedule(actors, choices, crashes)
    for actor in actors:
        actor.join(timeout=_SECONDS)
        for error in actor.errors:
            raise error
    check(client, name, actors)
