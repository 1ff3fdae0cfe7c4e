"""A model of the promotion protocol: clients whose every store operation can be interleaved.

It mirrors `promotion/moves.py` and `promotion/event_log.py` step by step, with a store of plain
values, so that all interleavings of a few clients can be explored. Each operation on the store is
one step. A client can crash at any step; the write that it was about to send is then lost, or
delayed and executed at any later time.

The read of a chain counts as one step: the run of the last event has both its outcome and the
parameter that would name the next one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

OPEN, APPLIED, FAILED, SUPERSEDED = "open", "applied", "failed", "superseded"
NO_VERSION = 0
FOREIGN_VERSION = 9  # the version that another tool puts into the stage
REPAIR = -1  # a command; every other one promotes the version of that number
NO_EVENT = -1
_LONGEST_CHAIN = 6
CRASHED = -1  # the owner of the marks of clients that crashed


class Event(NamedTuple):
    """An event that was claimed; its place in the chain is its number."""

    version: int
    outcome: str = OPEN
    external: bool = False


class Client(NamedTuple):
    """The local state of a client; `step` is the next operation that it sends."""

    commands: tuple[int, ...]  # left to do
    step: str = "read head"
    head: int = NO_EVENT
    entry: int = NO_EVENT
    held: int = NO_VERSION
    marked: frozenset[int] = frozenset()  # the events that were marked when it looked
    disturbed: bool = False  # a client began or ended to apply an event since then
    superseded: bool = False  # a repair has closed the event that it has recorded
    applying: int = NO_EVENT
    is_own: bool = False  # that is its own event


class State(NamedTuple):
    """The store, the clients, and the moves that the environment has left."""

    clients: tuple[Client, ...]
    chain: tuple[Event, ...] = ()
    alias: int = NO_VERSION
    marks: frozenset[tuple[int, int]] = frozenset()  # a client, and an event
    delayed: frozenset[tuple[str, int, int, bool]] = frozenset()  # writes of crashed clients
    faulty: frozenset[int] = frozenset()  # versions whose digest was changed
    faults_left: frozenset[int] = frozenset()
    external_moves_left: int = 0
    crashes_left: int = 0


class Violation(AssertionError):
    """A state that breaks an invariant."""


def entry_of(chain: tuple[Event, ...]) -> int:
    """Return the number of the newest event that has not failed."""
    number = len(chain) - 1
    while number >= 0 and chain[number].outcome in (FAILED, SUPERSEDED):
        number -= 1
    return number


def version_of(state: State, event: int) -> int:
    return state.chain[event].version if event >= 0 else NO_VERSION


def close(state: State, event: int, outcome: str) -> State:
    """Write an outcome, unless there is one."""
    if event < 0 or state.chain[event].outcome != OPEN:
        return state
    closed = state.chain[event]._replace(outcome=outcome)
    return state._replace(chain=(*state.chain[:event], closed, *state.chain[event + 1 :]))


def disturb(state: State) -> State:
    """Change the text by which clients see that another one began or ended to apply an event."""
    return state._replace(
        clients=tuple(
            client._replace(disturbed=True) if client.step in _WATCHING else client
            for client in state.clients
        )
    )


_WATCHING = ("read alias", "read progress again")


def claim(state: State, version: int, head: int, superseded: bool, external: bool = False) -> State:
    """Append an event after the head that its client has read; change nothing if there is another."""
    if head != len(state.chain) - 1:
        return state
    outcome = SUPERSEDED if superseded else APPLIED if external else OPEN
    return state._replace(chain=(*state.chain, Event(version, outcome, external)))


def write(state: State, operation: str, who: int, value: int, superseded: bool) -> State:
    """Execute a write: `value` is an event, and for a claim version and head in one number."""
    if operation == "claim":
        return claim(state, value // 100, value % 100 - 1, superseded)
    if operation == "mark":
        return disturb(state._replace(marks=state.marks | {(who, value)}))
    if operation == "set alias":
        return state._replace(alias=version_of(state, value))
    if operation == "write outcome":
        return close(state, value, APPLIED)
    return disturb(state)  # of `set head`, which is only a hint where the chain ends


def pending_write(client: Client) -> tuple[str, int, bool] | None:
    """Return the write that a client is about to send."""
    if client.step == "claim":
        return "claim", client.commands[0] * 100 + client.head + 1, client.superseded
    if client.step in {"mark", "set alias", "write outcome", "set head"}:
        return client.step, client.applying, False
    return None


def replace_client(state: State, who: int, client: Client) -> State:
    return state._replace(clients=(*state.clients[:who], client, *state.clients[who + 1 :]))


def successors(state: State) -> Iterator[State]:
    """Yield each state that one step leads to."""
    for who, client in enumerate(state.clients):
        if client.step == "end":
            continue
        yield advance(state, who)
        if state.crashes_left:
            marks = frozenset((CRASHED if owner == who else owner, event) for owner, event in state.marks)
            crashed = replace_client(state, who, Client((), "end"))
            crashed = crashed._replace(marks=marks, crashes_left=state.crashes_left - 1)
            yield crashed
            pending = pending_write(client)
            if pending is not None:
                operation, value, superseded = pending
                late = (operation, CRASHED, value, superseded)
                yield crashed._replace(delayed=crashed.delayed | {late})
    for late in state.delayed:
        yield write(state._replace(delayed=state.delayed - {late}), *late)
    if state.external_moves_left:
        yield state._replace(alias=FOREIGN_VERSION, external_moves_left=state.external_moves_left - 1)
    for version in state.faults_left:
        yield state._replace(faulty=state.faulty | {version}, faults_left=state.faults_left - {version})


def advance(state: State, who: int) -> State:
    """Let a client do its next step."""
    client = state.clients[who]

    def goto(step: str, after: State = state, **changes: object) -> State:
        return replace_client(after, who, client._replace(step=step, **changes))  # type: ignore[arg-type]

    def begin(after: State = state, done: bool = False) -> State:
        """Begin to read the stage, for the next command if this one is done."""
        commands = client.commands[1:] if done else client.commands
        return replace_client(after, who, Client(commands, "read head" if commands else "end"))

    def apply(event: int, after: State = state, is_own: bool = False) -> State:
        faults_matter = after.faulty or after.faults_left
        step = "check version" if faults_matter and event >= 0 else "mark"
        applying = Client(client.commands, step, applying=event, is_own=is_own)
        return replace_client(after, who, applying)

    match client.step:
        case "read head":
            entry = entry_of(state.chain)
            if entry >= 0 and state.chain[entry].outcome == OPEN:
                return apply(entry)
            return goto("read progress", head=len(state.chain) - 1, entry=entry)
        case "read progress":
            return goto("read alias", marked=frozenset(event for _, event in state.marks))
        case "read alias":
            if state.alias != version_of(state, client.entry):
                return goto("read progress again", held=state.alias)
            if client.commands[0] == REPAIR:
                return goto("close drafts")
            if client.commands[0] == state.alias:  # the version is in the stage already
                return begin(done=True)
            return goto("read alias again", held=state.alias, marked=frozenset(), disturbed=False)
        case "read progress again":
            if client.disturbed:
                return begin()
            late = client.held in {version_of(state, event) for event in client.marked}
            if late and version_of(state, client.entry) not in state.faulty:
                return apply(client.entry)
            return goto("claim external")
        case "claim external":
            claimed = claim(state, client.held, client.head, superseded=False, external=True)
            return begin(disturb(claimed))
        case "close drafts":
            closed = tuple(
                each._replace(superseded=True) if each.step in {"read alias again", "claim"} else each
                for each in state.clients
            )
            delayed = frozenset((name, owner, value, True) for name, owner, value, _ in state.delayed)
            return begin(state._replace(clients=closed, delayed=delayed), done=True)
        case "read alias again":
            return goto("claim") if state.alias == client.held else begin(done=True)
        case "claim":
            claimed = claim(state, client.commands[0], client.head, client.superseded)
            if claimed is state:
                return begin(done=True)
            return apply(len(state.chain), claimed, is_own=True)
        case "check version":
            if version_of(state, client.applying) not in state.faulty:
                return goto("mark")
            is_open = state.chain[client.applying].outcome == OPEN
            return goto("write failure" if is_open else "look for newer")
        case "write failure":
            return goto("look for newer", close(state, client.applying, FAILED))
        case "mark":
            marked = write(state, "mark", who, client.applying, False)
            return replace_client(marked, who, client._replace(step="set alias"))
        case "set alias":
            return goto("write outcome", write(state, "set alias", who, client.applying, False))
        case "write outcome":
            return goto("look for newer", write(state, "write outcome", who, client.applying, False))
        case "look for newer":
            newest = entry_of(state.chain)
            if newest == client.applying:
                return goto("set head")
            return apply(newest, is_own=client.is_own)
        case "set head":
            return replace_client(disturb(state), who, client._replace(step="remove marks"))
        case "remove marks":
            kept = frozenset(mark for mark in state.marks if mark[0] != who)
            return begin(disturb(state._replace(marks=kept)), done=client.is_own)
    raise AssertionError(client.step)


def repair(state: State) -> State:
    """Run a repair alone, with no other client."""
    alone = replace_client(state, 0, Client((REPAIR,)))
    while alone.clients[0].step != "end":
        alone = advance(alone, 0)
    return alone


def check(state: State, may_be_external: bool) -> None:
    """Check the invariants of a state in which no client is at work, and a repair has run."""
    if state.alias != version_of(state, entry_of(state.chain)):
        raise Violation(f"the stage is not at its newest event: {state}")
    if any(event.outcome == OPEN for event in state.chain):
        raise Violation(f"an event of the chain is open: {state}")
    if not may_be_external and any(event.external for event in state.chain):
        raise Violation(f"a move by a client was recorded as external: {state}")


def explore(start: State) -> int:
    """Visit every state that can be reached, check it, and return the number of states."""
    # A stage is not restored to a version whose digest was changed.
    may_be_external = bool(start.external_moves_left or start.faults_left)
    seen = {start}
    left = [start]
    while left:
        state = left.pop()
        following = list(successors(state))
        if all(client.step == "end" for client in state.clients):
            repaired = repair(state)
            check(repaired, may_be_external)
            following.append(repaired)
        for each in following:
            # Two clients could record one external move in turns, without end, if each of them acted
            # exactly between two steps of the other.
            if each not in seen and len(each.chain) <= _LONGEST_CHAIN:
                seen.add(each)
                left.append(each)
    return len(seen)
