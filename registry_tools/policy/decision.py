"""Decide whether a stage may move to a version, by the policy and by the tags of the version."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, TypeVar

from registry_tools.attestation.envelope import verify_envelope
from registry_tools.attestation.statement import VerdictStatement
from registry_tools.errors import MoveRefused, VerificationError
from registry_tools.policy import tag_names
from registry_tools.policy.definition import Policy, StagePolicy
from registry_tools.policy.records import Approval, Force, Held, Record, Request, verdict_digest
from registry_tools.refs import version_text

R = TypeVar("R", bound=Record)
B = TypeVar("B", bound=Request)  # the records that are bound to the state of a move

# The registry puts this before the message of a refusal, so that clients can tell it from other errors.
REFUSED_PREFIX = MoveRefused.prefix
CLOCK_SKEW = timedelta(minutes=5)  # a verdict may be this much newer than the clock of the registry


@dataclass(frozen=True)
class Move:
    """A move of a stage to a version, with the state of the registry."""

    model: str
    stage: str
    version: int
    holder: int | None  # the version in the stage; None if it is empty
    head: int  # the number of moves of the stage so far
    digests: Mapping[str, str | None]  # of the version: `model` and `evidence`
    tags: Mapping[str, str]  # of the version
    user: str | None  # who asks for the move; None if the registry does not know
    now: datetime

    @property
    def verdict(self) -> str | None:
        """The SHA-256 of the verdict of the version; None if it has none."""
        envelope = self.tags.get(tag_names.verdict_tag(self.stage))
        return verdict_digest(envelope) if envelope is not None else None


@dataclass(frozen=True)
class Grant:
    """An allowed move, with the verdict that allows it."""

    action: Literal["unchanged", "promote", "rollback", "force"]
    envelope: str | None = None
    reason: str = ""


def decide(policy: Policy, move: Move) -> Grant:
    """Return why a stage may move to a version. A stage without rules may move to any version.

    Raises
    ------
    MoveRefused
        If no rule allows the move. The message names the first missing condition and the command to use.
    """
    grant, gaps, others = _judge(policy, move)
    if grant is None:
        why = "; ".join([*others, f"to promote it: {gaps[0]}"]) if others else gaps[0]
        raise MoveRefused(f"{move.model} version {move.version} may not enter {move.stage}: {why}")
    return grant


def missing(policy: Policy, move: Move) -> list[str]:
    """Return a line for each condition of a promotion that is not met; empty if `decide` allows the move."""
    return _judge(policy, move)[1]


def verify_verdict(
    rules: StagePolicy, envelope: str, model: str, version: int, digests: Mapping[str, str | None]
) -> VerdictStatement:
    """Return the statement of a verdict, after checking who signed it and which files it is about.

    Its head, champion, policy and expiry count for a promotion only, and are not checked.

    Raises
    ------
    VerificationError
        If no evaluator of the stage signed it, a gate refused, or it is about another registry, version,
        stage or file.
    """
    payload, evaluator = verify_envelope(envelope, rules.evaluators)
    statement = VerdictStatement.from_bytes(payload)
    expected = {
        "registry": rules.registry,
        "model": model,
        "version": version,
        "stage": rules.stage,
        "evaluator": evaluator,
        "model_digest": digests.get("model"),
        "evidence_digest": digests.get("evidence"),
    }
    for name, value in expected.items():
        found = getattr(statement, name)
        if found != value:
            raise VerificationError(f"it is about the {name.replace('_', ' ')} {found}, not {value}")
    if not statement.passed or not statement.gates or not all(gate["passed"] for gate in statement.gates):
        raise VerificationError("a gate refused the version")
    return statement


def verdict_of(rules: StagePolicy, move: Move) -> VerdictStatement:
    """Return the statement of the verdict of a version, as `verify_verdict` does.

    Raises
    ------
    VerificationError
        If the version has no verdict, or for the reasons of `verify_verdict`.
    """
    envelope = move.tags.get(tag_names.verdict_tag(move.stage))
    if envelope is None:
        raise VerificationError("it has no verdict")
    return verify_verdict(rules, envelope, move.model, move.version, move.digests)


def current_record(kind: type[B], move: Move, tag: str) -> B | None:
    """Return a request or an approval; None if it is missing, invalid, or bound to another state."""
    record, _ = _read(kind, move, tag)
    return record if record is not None and _is_current(record, move) else None


def decisions(rules: StagePolicy, move: Move) -> list[Approval]:
    """Return the present approvals and rejections by the users who may approve; each user has one tag."""
    tags = {user: tag_names.approval_tag(move.stage, user) for user in rules.approvals.by}
    found = ((user, current_record(Approval, move, tag)) for user, tag in tags.items())
    return [approval for user, approval in found if approval is not None and approval.by == user]


def _judge(policy: Policy, move: Move) -> tuple[Grant | None, list[str], list[str]]:
    """Return the grant, or else the unmet conditions of a promotion, and why no rollback or force counts."""
    if move.holder == move.version:
        return Grant("unchanged"), [], []
    rules = policy.stage(move.model, move.stage)
    if rules is None:
        return Grant("promote"), [], []
    force, of_force = _read(Force, move, tag_names.force_tag(move.stage))
    if force is not None:
        of_force = _force_gap(rules, move, force)
        if of_force is None:
            return Grant("force", None, force.reason), [], []
    request, of_request = _read(Request, move, tag_names.request_tag(move.stage))
    gaps = [*_verdict_gaps(rules, move), *_approval_gaps(rules, move, request, of_request)]
    if not gaps:
        envelope = move.tags[tag_names.verdict_tag(move.stage)]
        reason = request.reason if request is not None and _is_current(request, move) else ""
        return Grant("promote", envelope, reason), [], []
    held, of_held = _read(Held, move, tag_names.held_tag(move.stage))
    if held is not None:
        of_held = _rollback_gap(rules, move, held)
        if of_held is None:
            return Grant("rollback", held.envelope), [], []
    others = {"a rollback to it is refused": of_held, "its force does not count": of_force}
    return None, gaps, [f"{what}: {gap}" for what, gap in others.items() if gap is not None]


def _read(kind: type[R], move: Move, tag: str) -> tuple[R | None, str | None]:
    """Return the record in a tag, or else the fault of its text; neither if there is no such tag."""
    text = move.tags.get(tag)
    if text is None:
        return None, None
    try:
        return kind.from_text(text), None
    except VerificationError as error:
        return None, str(error)


def _force_gap(rules: StagePolicy, move: Move, force: Force) -> str | None:
    if force.by not in rules.force:
        return f"{force.by or 'an unknown user'} may not force it; the policy names {_names(rules.force)}"
    if force.head != move.head:
        return f"it was given for move {force.head + 1} of the stage, and the next is {move.head + 1}"
    return None if force.reason.strip() else "it has no reason"


def _rollback_gap(rules: StagePolicy, move: Move, held: Held) -> str | None:
    if move.user not in rules.rollback:
        return (
            f"{move.user or 'an unknown user'} may not roll back; the policy names {_names(rules.rollback)}"
        )
    if held.envelope is None:
        return "it held the stage without a verdict"
    try:
        verify_verdict(rules, held.envelope, move.model, move.version, move.digests)
    except VerificationError as error:
        return f"the verdict with which it held the stage does not count: {error}"
    return None


def _verdict_gaps(rules: StagePolicy, move: Move) -> Iterator[str]:
    evaluate = f"run: registry-tools evaluate {move.model}/{move.version} --to {move.stage} --key KEY"
    envelope = move.tags.get(tag_names.verdict_tag(move.stage))
    if move.digests.get("model") is None:
        yield f"it has no digest of its files; run: registry-tools adopt {move.model}/{move.version}"
    elif envelope is None:
        yield f"it has no verdict; {evaluate}"
    else:
        try:
            statement = verify_verdict(rules, envelope, move.model, move.version, move.digests)
        except VerificationError as error:
            yield f"its verdict does not count: {error}; {evaluate}"
        else:
            yield from (f"its verdict {gap}; {evaluate}" for gap in _statement_gaps(rules, move, statement))
    freeze = rules.frozen_at(move.now)
    if freeze is not None:
        yield f"{move.stage} is frozen until {freeze.until.isoformat()}: {freeze.reason}"


def _statement_gaps(rules: StagePolicy, move: Move, statement: VerdictStatement) -> Iterator[str]:
    if statement.head != move.head:
        yield f"is for move {statement.head + 1} of the stage, and the next is {move.head + 1}"
    if statement.champion != move.holder:
        held = version_text(move.holder)
        yield f"compares with {version_text(statement.champion)}, and the stage holds {held}"
    gates = rules.gates
    metric = statement.metric if gates.metric == "auto" else gates.metric
    options = statement.rule, statement.margin, statement.metric
    if statement.policy != rules.digest or options != (gates.rule, gates.margin, metric):
        yield "is for other rules than those in the policy of the registry"
    if statement.evaluated_at > move.now + CLOCK_SKEW:
        yield f"is from {statement.evaluated_at.isoformat()}, which is in the future; check the clocks"
    if statement.expires_at <= move.now:
        yield f"expired at {statement.expires_at.isoformat()}"
    elif statement.expires_at > statement.evaluated_at + rules.expires:
        yield f"is valid for longer than the policy allows, which is {rules.expires}"


def _approval_gaps(
    rules: StagePolicy, move: Move, request: Request | None, fault: str | None
) -> Iterator[str]:
    count, command = rules.approvals.count, f"{move.model}/{move.version} --to {move.stage}"
    if count and (request is None or request.by is None or not _is_current(request, move)):
        yield f"{fault or _fault_of(request)}; run: registry-tools request {command} --reason TEXT"
    approvals = decisions(rules, move)
    for each in approvals:
        if each.decision == "reject":
            yield f"{each.by} rejected it: {each.reason}; {each.by} may run: registry-tools approve {command}"
    excluded = {request.by if request else None, move.tags.get(tag_names.REGISTERED_BY)}
    approvers = {each.by for each in approvals if each.decision == "approve"} - excluded
    if len(approvers) < count:
        others = [name for name in rules.approvals.by if name not in approvers | excluded]
        yield (
            f"it has {len(approvers)} of {count} approvals; {_names(others)} may run: "
            f"registry-tools approve {command}"
        )


def _fault_of(request: Request | None) -> str:
    if request is None:
        return "nobody requested it"
    if request.by is None:
        return "its request has no user: start the server with --app-name basic-auth"
    return "its request is void, because its verdict or the stage changed"


def _is_current(record: Request, move: Move) -> bool:
    present = move.digests.get("model"), move.head, move.verdict
    return (record.digest, record.head, record.verdict) == present


def _names(names: Sequence[str]) -> str:
    return ", ".join(names) or "nobody"
