"""A model of the promotion protocol: clients whose every store operation can be interleaved.

It mirrors `promotion/moves.py` and `promotion/event_log.py` step by step, with a store of plain
values, so that all interleavings of a few clients can be explored. Each operation on the store is
one step. A client can crash before each write; that write is then lost, or delayed and executed at
any later time. A crash before a read is the same as one before the next write, which is lost. A gated
registry can refuse to set the alias, for some clients and not for others. There no client may move the
stage to a version that once held it for the event of another client.

The read of a chain counts as one step: the run of the last event has both its outcome and the
parameter that would name the next one.

States with the same future are explored once: `normal_form` forgets events that no client can reach
again, and the order of the clients.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

OPEN, APPLIED, FAILED = "open", "applied", "failed"
NO_VERSION = 0
FOREIGN_VERSION = 9  # the version that another tool puts into the stage
REPAIR = -1  # a command; every other one promotes the version of that number
NO_EVENT = -1
# The head that a client has read is not the last event any more. (hash(-2) is hash(-1).)
STALE = -3


class Event(NamedTuple):
    """An event that was claimed; its place in the chain is its number."""

    version: int
    outcome: str = OPEN


class Client(NamedTuple):
    """The local state of a client; `step` is the next operation that it sends."""

    commands: tuple[int, ...]  # left to do
    step: str = "read head"
    head: int = NO_EVENT
    entry: int = NO_EVENT
    held: int = NO_VERSION
    marked: tuple[int, ...] = ()  # the versions that were marked when it looked
    disturbed: bool = False  # a client began or ended to apply an event since then
    superseded: bool = False  # a repair has closed the event that it has recorded
    applying: int = NO_EVENT
    is_own: bool = False  # that is its own event
    marks: tuple[int, ...] = ()  # the versions of the events that it has marked
    has_moved: bool = False  # it has set the alias since it began to apply events
    is_refused: bool = False  # the registry has refused to set the alias for the event that it applies
    is_restoring: bool = False  # it applies an event that was applied before, because the alias differs
    cannot_restore: bool = False  # the registry refused that


class Write(NamedTuple):
    """A write of a crashed client that the store has not executed yet."""

    operation: str
    event: int = NO_EVENT  # for a claim, the head that its client has read
    version: int = NO_VERSION
    superseded: bool = False


class State(NamedTuple):
    """The store, the clients, and the moves that the environment has left."""

    clients: tuple[Client, ...]
    chain: tuple[Event, ...] = ()
    alias: int = NO_VERSION
    marks: tuple[int, ...] = ()  # the versions that crashed clients had marked
    delayed: tuple[Write, ...] = ()
    faulty: frozenset[int] = frozenset()  # versions whose digest was changed
    faults_left: frozenset[int] = frozenset()
    external_moves_left: int = 0
    crashes_left: int = 0
    is_gated: bool = False  # the registry may refuse moves
    once_held: frozenset[int] = frozenset()  # in a gated registry, the versions that the stage had
    refusals_left: int = 0
    may_be_external: bool = False  # another tool moved the stage, or a gated registry prevents a restoration


class Violation(AssertionError):
    """A state that breaks an invariant."""


def entry_of(chain: tuple[Event, ...]) -> int:
    """Return the number of the newest event that has not failed."""
    number = len(chain) - 1
    while number >= 0 and chain[number].outcome == FAILED:
        number -= 1
    return number


def version_of(state: State, event: int) -> int:
    return state.chain[event].version if event >= 0 else NO_VERSION


def set_alias(state: State, version: int) -> State:
    once_held = state.once_held | {version} if state.is_gated else state.once_held
    return state._replace(alias=version, once_held=once_held)


def returns_by_role(state: State, event: int) -> bool:
    """Whether a gated registry decides on an event by the role of the user who sets the alias."""
    return version_of(state, event) in state.once_held


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


def claim(state: State, head: int, version: int, outcome: str) -> State:
    """Append an event after the head that its client has read; change nothing if there is another."""
    if head != len(state.chain) - 1:
        return state
    return state._replace(chain=(*state.chain, Event(version, outcome)))


def execute(state: State, write: Write) -> State:
    """Execute a write that was delayed."""
    if write.operation == "claim":
        # A draft that a repair has closed as superseded has failed from the start.
        outcome = FAILED if write.superseded else OPEN
        return claim(state, write.event, write.version, outcome)
    if write.operation == "mark":
        return disturb(state._replace(marks=(*state.marks, write.version)))
    if write.operation == "set alias":
        return set_alias(state, write.version)
    if write.operation == "write outcome":
        return close(state, write.event, APPLIED)
    if write.operation == "write refusal":
        return close(state, write.event, FAILED)
    return disturb(state)  # of `set head`, which is only a hint where the chain ends


_WRITES = (
    "claim", "claim external", "close drafts", "write failure", "mark", "set alias", "write outcome",
    "write refusal", "set head", "remove marks",
)  # fmt: skip


def pending_write(state: State, client: Client) -> Write | None:
    """Return the write that a client is about to send, if it can be executed later."""
    if client.step == "claim":
        return Write("claim", client.head, client.commands[0], client.superseded)
    if client.step in {"mark", "set alias"}:
        return Write(client.step, version=version_of(state, client.applying))
    if client.step in {"write outcome", "write refusal", "set head"}:
        return Write(client.step, client.applying)
    return None


def replace_client(state: State, who: int, client: Client) -> State:
    return state._replace(clients=(*state.clients[:who], client, *state.clients[who + 1 :]))


def successors(state: State) -> Iterator[State]:
    """Yield each state that one step leads to."""
    for who, client in enumerate(state.clients):
        if client.step == "end":
            continue
        yield advance(state, who)
        if state.refusals_left and can_be_refused(state, client):
            yield refuse(state, who)
        if state.crashes_left and client.step in _WRITES:
            crashed = replace_client(state, who, Client((), "end"))._replace(
                marks=(*state.marks, *client.marks), crashes_left=state.crashes_left - 1
            )
            yield crashed
            late = pending_write(state, client)
            if late is not None:
                yield crashed._replace(delayed=(*crashed.delayed, late))
    for number, late in enumerate(state.delayed):
        rest = (*state.delayed[:number], *state.delayed[number + 1 :])
        yield execute(state._replace(delayed=rest), late)
    if state.external_moves_left:
        left = state.external_moves_left - 1
        moved = set_alias(state, FOREIGN_VERSION)
        yield moved._replace(external_moves_left=left, may_be_external=True)
    for version in state.faults_left:
        # A stage is not restored to a version whose digest was changed.
        yield state._replace(
            faulty=state.faulty | {version}, faults_left=state.faults_left - {version}, may_be_external=True
        )


def can_be_refused(state: State, client: Client) -> bool:
    """Whether the next step sets the alias to another version; a gated registry accepts the same one."""
    return client.step == "set alias" and state.alias != version_of(state, client.applying)


def refuse(state: State, who: int) -> State:
    """Let a gated registry refuse to set the alias."""
    client = state.clients[who]
    refused = replace_client(state, who, client._replace(step="write refusal", is_refused=True))
    return refused._replace(
        refusals_left=state.refusals_left - 1,
        # A late move of this client may have displaced the event that it cannot apply again.
        may_be_external=state.may_be_external or client.has_moved or not is_open(state, client.applying),
    )


def advance(state: State, who: int) -> State:
    """Let a client do its next step."""
    client = state.clients[who]

    def goto(step: str, after: State = state, **changes: object) -> State:
        return replace_client(after, who, client._replace(step=step, **changes))  # type: ignore[arg-type]

    def begin(after: State = state, done: bool = False) -> State:
        """Begin to read the stage, for the next command if this one is done."""
        commands = client.commands[1:] if done else client.commands
        cannot_restore = not done and (client.cannot_restore or (client.is_restoring and client.is_refused))
        following = Client(commands, "read head" if commands else "end", cannot_restore=cannot_restore)
        return replace_client(after, who, following)

    def apply(event: int, after: State = state, **changes: bool) -> State:
        faults_matter = after.faulty or after.faults_left
        step = "check version" if faults_matter and event >= 0 else "mark"
        kept = {"marks": client.marks, "has_moved": client.has_moved, "cannot_restore": client.cannot_restore}
        applying = Client(client.commands, step, applying=event, **{**kept, **changes})  # type: ignore[arg-type]
        return replace_client(after, who, applying)

    match client.step:
        case "read head":
            entry = entry_of(state.chain)
            if is_open(state, entry) and returns_by_role(state, entry):
                if state.alias == version_of(state, entry):
                    return goto("write outcome", applying=entry)
                is_repair = client.commands[0] == REPAIR
                return goto("write failure", applying=entry) if is_repair else begin(done=True)
            if is_open(state, entry):
                return apply(entry)
            return goto("read progress", head=len(state.chain) - 1, entry=entry)
        case "read progress":
            marks = {*state.marks, *(version for each in state.clients for version in each.marks)}
            return goto("read alias", marked=tuple(sorted(marks)))
        case "read alias":
            if state.alias != version_of(state, client.entry):
                return goto("read progress again", held=state.alias)
            if client.commands[0] == REPAIR:
                return goto("close drafts")
            if client.commands[0] == state.alias:  # the version is in the stage already
                return begin(done=True)
            return goto("read alias again", held=state.alias)
        case "read progress again":
            if client.disturbed:
                return begin()
            is_marked = client.held in client.marked and version_of(state, client.entry) not in state.faulty
            if is_marked and returns_by_role(state, client.entry):
                return goto("claim external", state._replace(may_be_external=True))
            if is_marked and not client.cannot_restore:
                return goto("read head again")
            return goto("claim external")
        case "read head again":
            if client.head != len(state.chain) - 1:
                return begin()
            return apply(client.entry, is_restoring=True)
        case "claim external":
            claimed = claim(state, client.head, client.held, APPLIED)
            if claimed is not state and not state.may_be_external:
                raise Violation(f"a move by a client is recorded as external: {state}")
            return begin(disturb(claimed))
        case "close drafts":
            closed = tuple(
                each._replace(superseded=True) if each.step in {"read alias again", "claim"} else each
                for each in state.clients
            )
            delayed = tuple(
                write._replace(superseded=True) if write.operation == "claim" else write
                for write in state.delayed
            )
            return begin(state._replace(clients=closed, delayed=delayed), done=True)
        case "read alias again":
            return goto("claim") if state.alias == client.held else begin(done=True)
        case "claim":
            outcome = FAILED if client.superseded else OPEN
            claimed = claim(state, client.head, client.commands[0], outcome)
            if claimed is state or client.superseded:
                return begin(claimed, done=True)
            return apply(len(state.chain), claimed, is_own=True)
        case "check version":
            if version_of(state, client.applying) not in state.faulty:
                return goto("mark")
            is_left = is_open(state, client.applying)
            return goto("write failure" if is_left else "look for newer")
        case "write failure":
            return goto("look for newer", close(state, client.applying, FAILED))
        case "mark":
            version = version_of(state, client.applying)
            marked = tuple(sorted({*client.marks, version}))
            return goto("set alias", disturb(state), marks=marked)
        case "set alias":
            moved = set_alias(state, version_of(state, client.applying))
            return goto("write outcome", moved, has_moved=True)
        case "write refusal":
            return goto("look for newer", close(state, client.applying, FAILED))
        case "write outcome":
            return goto("look for newer", close(state, client.applying, APPLIED))
        case "look for newer":
            newest = entry_of(state.chain)
            has_no_effect = client.is_refused and not client.has_moved and not is_open(state, newest)
            if newest == client.applying or has_no_effect:
                return goto("set head")
            if returns_by_role(state, newest):
                return goto("set head", state._replace(may_be_external=True))
            return apply(newest, is_own=client.is_own, is_restoring=client.is_restoring)
        case "set head":
            return goto("remove marks", disturb(state))
        case "remove marks":
            return begin(disturb(state), done=client.is_own)
    raise AssertionError(client.step)


_LIVE = {
    "read head": ("cannot_restore",),
    "read progress": ("head", "entry", "cannot_restore"),
    "read alias": ("head", "entry", "marked", "disturbed", "cannot_restore"),
    "read progress again": ("head", "entry", "held", "marked", "cannot_restore"),
    "read head again": ("head", "entry", "cannot_restore"),
    "claim external": ("head", "held", "cannot_restore"),
    "close drafts": (),
    "read alias again": ("head", "held", "superseded"),
    "claim": ("head", "superseded"),
    "end": (),
}
_LIVE_WHEN_APPLYING = ("applying", "is_own", "marks", "cannot_restore")
_LIVE_WITH_REFUSALS = ("has_moved", "is_refused", "is_restoring")


def skip(state: State, client: Client) -> Client:
    """Skip the next step of a client if it has no effect, now or later."""
    is_stale = client.head != len(state.chain) - 1
    if client.step in {"read alias again", "claim"} and is_stale:
        commands = client.commands[1:]
        return Client(commands, "read head" if commands else "end")
    if client.step in {"claim external", "read head again"} and is_stale:
        return Client(client.commands, cannot_restore=client.cannot_restore)
    if client.step == "read progress again" and client.disturbed:
        return Client(client.commands, cannot_restore=client.cannot_restore)
    if client.step in {"write outcome", "write refusal"} and not is_open(state, client.applying):
        return client._replace(step="look for newer")
    return client


def live_part(state: State, client: Client) -> Client:
    """Return the state of a client without the values that it does not read again."""
    live = _LIVE.get(client.step, _LIVE_WHEN_APPLYING)
    if client.step not in _LIVE and state.is_gated:
        live = (*live, *_LIVE_WITH_REFUSALS)
    client = Client(client.commands, client.step, **{name: getattr(client, name) for name in live})
    if client.marked and (client.disturbed or client.step == "read progress again"):
        late = client.held in client.marked and not client.disturbed
        return client._replace(marked=(client.held,) if late else ())
    return client


def normal_form(state: State) -> State:
    """Return one state for all states with the same future."""
    last = len(state.chain) - 1
    clients = [live_part(state, skip(state, each)) for each in state.clients]
    # The events that matter: the entry, open ones, and those that a client is at.
    used = {entry_of(state.chain), *(number for number in range(last + 1) if is_open(state, number))}
    if state.is_gated:  # every open event can fail
        applied = (number for number in range(last + 1) if state.chain[number].outcome == APPLIED)
        used.add(max(applied, default=NO_EVENT))
    used |= {each.applying for each in clients} | {each.entry for each in clients}
    kept = sorted(number for number in used if number >= 0)
    new = {number: place for place, number in enumerate(kept)}

    def renumber_client(client: Client) -> Client:
        head = NO_EVENT
        if "head" in _LIVE.get(client.step, ()):
            head = len(kept) - 1 if client.head == last else STALE
        entry, applying = new.get(client.entry, NO_EVENT), new.get(client.applying, NO_EVENT)
        return client._replace(head=head, entry=entry, applying=applying)

    def renumber_write(write: Write) -> Write:
        is_claim = write.operation == "claim"
        return write._replace(event=len(kept) - 1 if is_claim else new.get(write.event, NO_EVENT))

    return state._replace(
        clients=tuple(sorted(renumber_client(each) for each in clients)),
        chain=tuple(state.chain[number] for number in kept),
        marks=tuple(sorted(set(state.marks))),
        delayed=tuple(sorted(renumber_write(each) for each in state.delayed if has_effect(state, each))),
    )


def has_effect(state: State, write: Write) -> bool:
    """Whether a delayed write can change the store, now or later."""
    if write.operation == "claim":
        return write.event == len(state.chain) - 1
    return write.operation not in {"write outcome", "write refusal"} or is_open(state, write.event)


def is_open(state: State, event: int) -> bool:
    return event >= 0 and state.chain[event].outcome == OPEN


def repair(state: State, may_move: bool = True) -> State:
    """Run a repair alone, with no other client; `may_move` False: a gated registry refuses its moves."""
    alone = replace_client(state, 0, Client((REPAIR,)))
    while alone.clients[0].step != "end":
        is_refused = not may_move and can_be_refused(alone, alone.clients[0])
        alone = refuse(alone, 0) if is_refused else advance(alone, 0)
    return alone


def check(state: State) -> None:
    """Check the invariants of a state in which no client is at work, and a repair has run."""
    if state.alias != version_of(state, entry_of(state.chain)):
        raise Violation(f"the stage is not at its newest event: {state}")
    if any(event.outcome == OPEN for event in state.chain):
        raise Violation(f"an event of the chain is open: {state}")


def explore(start: State) -> int:
    """Visit every state that can be reached, check it, and return the number of states."""
    seen = {hash(start)}
    left = [start]
    while left:
        state = left.pop()
        following = list(successors(state))
        if all(client.step == "end" for client in state.clients):
            repaired = repair(state)
            check(repaired)
            following.append(repaired)
            if state.is_gated:
                check(repair(state, may_move=False))
        for each in map(normal_form, following):
            if hash(each) not in seen:
                seen.add(hash(each))
                left.append(each)
    return len(seen)
