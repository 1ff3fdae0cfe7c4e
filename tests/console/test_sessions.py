from __future__ import annotations

from mlflow import MlflowClient

from registry_tools.console.sessions import (
    ATTEMPT_SECONDS,
    IDLE_SECONDS,
    LONGEST_SECONDS,
    AttemptLimit,
    Sessions,
)
from registry_tools.mlflow_store.user_credentials import User

ANA, BEN = User("ana", "secret of ana"), User("ben", "secret of ben")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def make_sessions(clock: Clock) -> Sessions:
    return Sessions(MlflowClient("http://127.0.0.1:1"), clock)


def test_a_session_is_found_by_its_id_only() -> None:
    sessions = make_sessions(Clock())
    first, second = sessions.begin(ANA), sessions.begin(BEN)
    assert first != second
    assert sessions.find(first).user == ANA
    assert sessions.find(second).user == BEN
    assert sessions.find(first).csrf != sessions.find(second).csrf
    for unknown in (None, "", "x", first[:-1]):
        assert sessions.find(unknown) is None


def test_an_idle_session_ends_and_a_used_one_does_not() -> None:
    clock = Clock()
    sessions = make_sessions(clock)
    used, idle = sessions.begin(ANA), sessions.begin(BEN)
    clock.now += IDLE_SECONDS - 1
    assert sessions.find(used) is not None
    clock.now += 2
    assert sessions.find(used) is not None
    assert sessions.find(idle) is None


def test_a_session_ends_after_the_longest_time_even_if_it_is_used() -> None:
    clock = Clock()
    sessions = make_sessions(clock)
    identifier = sessions.begin(ANA)
    for _ in range(int(LONGEST_SECONDS // (IDLE_SECONDS - 1))):
        clock.now += IDLE_SECONDS - 1
        assert sessions.find(identifier) is not None
    clock.now += IDLE_SECONDS - 1
    assert sessions.find(identifier) is None


def test_a_sixth_session_of_a_user_ends_the_one_that_was_used_least_recently() -> None:
    clock = Clock()
    sessions = make_sessions(clock)
    of_ben = sessions.begin(BEN)
    of_ana = []
    for _ in range(6):
        clock.now += 1
        of_ana.append(sessions.begin(ANA))
    assert [sessions.find(each) is not None for each in of_ana] == [False, True, True, True, True, True]
    assert sessions.find(of_ben) is not None


def test_the_number_of_sessions_of_all_users_is_limited() -> None:
    clock = Clock()
    sessions = make_sessions(clock)
    begun = []
    for number in range(201):
        clock.now += 0.1
        begun.append(sessions.begin(User(f"user-{number}", "secret")))
    assert [sessions.find(begun[place]) is not None for place in (0, 1, 200)] == [False, True, True]


def test_an_ended_session_is_not_found() -> None:
    sessions = make_sessions(Clock())
    identifier = sessions.begin(ANA)
    sessions.end(identifier)
    sessions.end(identifier)
    sessions.end(None)
    assert sessions.find(identifier) is None


def test_the_text_of_a_session_shows_neither_password_nor_token() -> None:
    sessions = make_sessions(Clock())
    session = sessions.find(sessions.begin(ANA))
    assert "ana" in repr(session)
    assert ANA.password not in repr(session)
    assert session.csrf not in repr(session)


def test_attempts_are_limited_for_each_key_until_the_oldest_is_over() -> None:
    clock = Clock()
    limit = AttemptLimit(3, clock)
    for _ in range(3):
        assert limit.wait_seconds("ana") == 0
        clock.now += 10
    assert limit.wait_seconds("ana") == ATTEMPT_SECONDS - 30
    assert limit.wait_seconds("ben") == 0
    clock.now += ATTEMPT_SECONDS - 30
    assert limit.wait_seconds("ana") == 0
    assert limit.wait_seconds("ana") == 10
    limit.forget("ana")
    assert limit.wait_seconds("ana") == 0


def test_the_number_of_names_that_the_limit_remembers_is_bounded() -> None:
    limit = AttemptLimit(1, Clock())
    for number in range(2_001):
        assert limit.wait_seconds(f"name-{number}") == 0
    assert limit.wait_seconds("name-2000") > 0
    assert limit.wait_seconds("name-0") == 0  # forgotten
